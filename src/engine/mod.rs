//! The Docker daemon: its REST API (`docker`, the only user of bollard) and the BuildKit in it (`buildkit`, the only user
//! of tonic), both over one way of dialling.

pub mod buildkit;
mod dial;
mod docker;
mod tls;

pub use dial::{Dialer, Stream};
pub use docker::{BorrowedName, Docker, EngineInfo, StoreKind};
