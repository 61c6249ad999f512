//! Streams of blob bytes: where they come from, how they are verified, compressed and kept while they move.

pub mod compress;
mod layer;
mod source;
mod spool;

pub use layer::{LayerEntries, LayerEntry};
pub use source::{BlobSource, ByteStream, BytesSource, Identity};
pub use spool::{Spool, SpoolWriter};
