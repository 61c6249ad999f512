//! Docker's credentials: `config.json` and credential helpers. hakobi only reads them.

mod config;
mod credential;
mod helper;

pub(super) use config::DockerConfig;
pub use credential::{Credential, Found, canonical_host};
pub(super) use credential::{DOCKER_HUB_KEY, key_of};
