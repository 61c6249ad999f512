//! The loopback endpoint: hakobi as a registry on 127.0.0.1, to which the daemon pushes what it built.
//!
//! The daemon already speaks one layer-wise protocol in which it asks before it sends. What it asks and sends is handed to
//! a [`Receiver`]; nothing is kept here. Only this host can connect, and every repository's name begins with a word that
//! cannot be guessed.

mod http;
mod server;
mod uploads;

pub use server::{Endpoint, Receiver};
