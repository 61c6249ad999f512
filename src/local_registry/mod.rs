//! The loopback endpoint: hakobi as a registry on 127.0.0.1, from which the daemon pulls what is kept in a store and to which
//! it pushes what it built.
//!
//! The daemon already speaks one layer-wise protocol in which it asks before it sends. What it pushes is handed to a
//! [`Receiver`], what it pulls lies on a [`CacheRepository`]. Only this host can connect, and every repository's name begins with a word
//! that cannot be guessed. A shelf gives only what its own tags lead to, though scopes share a store's blobs.
//!
//! A blob that is asked for twice at once is read twice: daemons do not do that. Docker's own pulls join a transfer that is under
//! way by its key (moby `distribution/xfer`), containerd's locks the blob it writes, and whoever waited finds it there
//! (`remotes.Fetch`, `content.OpenWriter`). One stream for several readers would go at the pace of the slowest, or keep the layer.

mod answer;
mod connections;
mod http;
mod offered;
mod pull;
mod receiver;
mod server;
mod shelf;
mod through;
mod uploads;

pub use pull::{Given, Served};
pub use receiver::Receiver;
pub use server::{Address, Endpoint, NOWHERE, is_own_name};
pub use shelf::CacheRepository;
