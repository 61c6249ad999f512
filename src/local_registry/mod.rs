//! The loopback endpoint: hakobi as a registry on 127.0.0.1. The daemon pulls cached layers from it and pushes its images to it.
//!
//! The daemon already speaks a protocol that transfers single layers and asks before it sends one. Pushed images go to a
//! [`Receiver`], and pulled ones come from a [`CacheRepository`]. Only this host can connect, and every repository's name begins
//! with a secret path. A cache repository serves only what its own tags lead to, though scopes share a store's blobs.
//!
//! If two clients request a blob at once, hakobi reads it twice: daemons do not do that. Docker's own pulls join a running transfer
//! by its key (moby `distribution/xfer`). containerd locks the blob that it writes, and whoever waited finds it there
//! (`remotes.Fetch`, `content.OpenWriter`). One stream for several readers would be as slow as the slowest, or store the layer.

mod answer;
mod cache_repository;
mod connections;
mod http;
mod offered;
mod pull;
mod pull_through;
mod receiver;
mod server;
mod uploads;

pub use cache_repository::CacheRepository;
pub use pull::{Served, Transferred};
pub use receiver::Receiver;
pub use server::{Address, Endpoint, NOWHERE, is_own_name};
