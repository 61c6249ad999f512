//! The Docker daemon: its REST API (`docker`, the only user of bollard) and its BuildKit (`buildkit`, the only user of tonic). Both
//! use the same code to connect.

pub mod buildkit;
mod dial;
mod docker;
#[cfg(test)]
mod error_tests;
mod operations;
mod tls;

pub use dial::{Dialer, Stream};
pub use docker::{BorrowedName, Docker, EngineInfo, StoreKind};
