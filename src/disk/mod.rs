//! A disk image in a store, in chunks that are named by their content. It is read before it has come, and only what was changed is
//! written again.
//!
//! This is the first part of a daemon whose data root is such an image; nothing uses it yet.
//!
//! [`ChunkList`] says which chunks an image has. [`SavedDisk`] is what a record holds of it: the list is cut into nodes, so that a small
//! change writes few of them. [`Image`] is an image in use: a sparse local copy, into which chunks come when they are read.

mod chunk;
mod error;
mod image;
mod list;
mod saved;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use image::Image;
pub use list::{CHUNK, ChunkList};
pub use saved::SavedDisk;
