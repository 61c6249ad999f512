//! Registries: the OCI distribution protocol, Docker's credentials, and the functions of ECR that need AWS's own API.
//!
//! A run makes one [`Registries`]. [`Registries::repository`] returns a [`Client`] for one repository. Both are cheap to clone and
//! share connections, tokens and logins.

mod auth;
mod blob;
mod client;
mod credentials;
mod docker_auth;
mod ecr;
mod error;
#[cfg(test)]
mod error_tests;
mod home;
mod host;
mod http;
mod manifest;
mod rate;
mod registries;
mod reply;
mod retry;
mod shared;
mod start;
mod tags;
#[cfg(test)]
pub mod testing;
mod upload;
mod upload_body;

pub use crate::aws::AwsSource;
pub use auth::Token;
pub use blob::RemoteBlob;
pub use client::{Client, PushAccess};
pub use credentials::{Credential, Found, canonical_host};
pub use ecr::EcrHost;
pub use error::{Error, Kind, Result};
pub use home::{Home, Source, read_blob};
pub use http::install_crypto;
pub use manifest::Put;
pub use registries::{Options, Registries};
pub use retry::Patience;
pub use upload::Uploaded;
pub use upload_body::Progress;
