//! Streams of blob bytes: where they come from, how they are verified, compressed and kept while they move, and the
//! temporary folders for them.

pub mod compress;
mod layer;
mod scratch;
mod source;
mod spool;

pub use layer::{LayerEntries, LayerEntry};
pub use scratch::{Dead, Scratch, temp_dir};
pub use source::{BlobSource, ByteStream, BytesSource, Identity};
pub use spool::{Spool, SpoolWriter};
