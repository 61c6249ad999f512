//! A disk image in a store, in chunks that are named by their content. It is read before it has come, and only what was changed is
//! written again.
//!
//! It has the data root of a daemon (`crate::lazy_daemon`).
//!
//! [`ChunkList`] says which chunks an image has. [`SavedDisk`] is what a record holds of it: the list is cut into nodes, so that a small
//! change writes few of them. [`Image`] is an image in use: a sparse local copy, into which chunks come when they are read. [`serve()`]
//! makes it a file, in a process of its own, which [`protocol`] talks to.

mod chunk;
mod error;
mod image;
pub mod lines;
mod list;
pub mod protocol;
mod record;
mod saved;
mod serve;
#[cfg(test)]
mod tests;

pub use error::{DiskLoss, Error, Result};
pub use image::Image;
pub use list::{CHUNK, ChunkList};
pub use record::DiskRecord;
pub use saved::SavedDisk;
pub use serve::{Lost, serve};
