//! Which chunks an image has.

use crate::domain::Digest;

/// The size of a chunk in bytes. It is what one request brings for a read of a few bytes, so it must not be large; and each costs a
/// request, so it must not be small.
pub const CHUNK: usize = 1 << 20;

/// The chunks of an image, in order. Each is the digest of the compressed chunk, or `None` for one of zeros alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    chunks: Vec<Option<Digest>>,
}

impl ChunkList {
    /// Returns the list of an image of zeros, with at least this size in bytes.
    #[must_use]
    pub fn empty(size: u64) -> Self {
        let count = size.div_ceil(CHUNK as u64);
        Self { chunks: vec![None; usize::try_from(count).unwrap_or(usize::MAX)] }
    }

    pub(super) fn new(chunks: Vec<Option<Digest>>) -> Self {
        Self { chunks }
    }

    /// Returns the size of the image in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK as u64
    }

    /// Returns the chunks.
    #[must_use]
    pub fn chunks(&self) -> &[Option<Digest>] {
        &self.chunks
    }

    pub(super) fn set(&mut self, place: usize, chunk: Option<Digest>) {
        if let Some(there) = self.chunks.get_mut(place) {
            *there = chunk;
        }
    }
}
