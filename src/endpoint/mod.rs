//! The loopback endpoint: hakobi as a registry on 127.0.0.1, from which the daemon pulls what is kept in a store and to which
//! it pushes what it built.
//!
//! The daemon already speaks one layer-wise protocol in which it asks before it sends. What it pushes is handed to a
//! [`Receiver`], what it pulls lies on a [`Shelf`]. Only this host can connect, and every repository's name begins with a word
//! that cannot be guessed.

mod http;
mod pull;
mod server;
mod shelf;
mod uploads;

pub use pull::Served;
pub use server::{Address, Endpoint, Receiver};
pub use shelf::Shelf;
