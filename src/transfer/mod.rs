//! Streams of blobs: reads, verifies, compresses and buffers them, and creates the temporary directories for them.

pub mod compress;
mod layer;
mod scratch;
mod source;
mod spool;

pub use layer::{LayerEntries, LayerEntry};
pub use scratch::{Dead, Scratch, temp_dir};
pub use source::{BlobSource, ByteStream, BytesSource, Identity};
pub use spool::{Spool, SpoolWriter};
