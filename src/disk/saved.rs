//! What a record holds of an image.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::list::{CHUNK, ChunkList};
use crate::domain::Digest;
use crate::store::{Blobs, Fault};
use crate::transfer::BytesSource;

/// The number of chunks in a node.
const FAN_OUT: usize = 256;

/// The most nodes of an image: of 1 TiB.
const MOST_NODES: usize = 4096;

/// The most bytes of a node: a digest for each chunk, as text.
const LARGEST_NODE: u64 = 1 << 16;

/// How many nodes are read or written at once.
const AT_ONCE: usize = 16;

/// An image in a store. Its list of chunks is cut into nodes, each a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDisk {
    /// The number of chunks.
    pub chunks: u64,
    /// The nodes, in order.
    pub nodes: Vec<Digest>,
}

impl SavedDisk {
    /// Writes the nodes of a list that `before` does not have.
    ///
    /// # Errors
    /// If the store does not accept one.
    pub async fn save(blobs: &Blobs, list: &ChunkList, before: Option<&Self>) -> Result<Self> {
        let known: BTreeSet<&Digest> = before.into_iter().flat_map(|before| &before.nodes).collect();
        let sources: Vec<BytesSource> = list
            .chunks()
            .chunks(FAN_OUT)
            .map(|node| BytesSource::new(serde_json::to_vec(node).unwrap_or_default().into()))
            .collect();
        let digests = sources.iter().map(BytesSource::digest);
        let saved = Self { chunks: list.chunks().len() as u64, nodes: digests.cloned().collect() };
        let new = sources.iter().filter(|source| !known.contains(source.digest()));
        stream::iter(new).map(|source| blobs.keep(source)).buffer_unordered(AT_ONCE).try_collect::<Vec<bool>>().await?;
        Ok(saved)
    }

    /// Reads the list of chunks.
    ///
    /// # Errors
    /// If a node is missing or damaged, or has another number of chunks.
    pub async fn load(&self, blobs: &Blobs) -> Result<ChunkList> {
        let count = usize::try_from(self.chunks).unwrap_or(usize::MAX);
        if self.nodes.len() > MOST_NODES || self.nodes.len() != count.div_ceil(FAN_OUT) {
            let own = self.nodes.first().cloned().unwrap_or_else(|| Digest::hash(b""));
            return Err(Error::Malformed(own, format!("{} nodes for {count} chunks", self.nodes.len())));
        }
        let read = self.nodes.iter().enumerate().map(|(place, node)| async move {
            let bytes = read(blobs, node, LARGEST_NODE).await?;
            let chunks: Vec<Option<Digest>> =
                serde_json::from_slice(&bytes).map_err(|error| Error::Malformed(node.clone(), error.to_string()))?;
            let expected = FAN_OUT.min(count - place * FAN_OUT);
            if chunks.len() != expected {
                return Err(Error::Malformed(node.clone(), format!("{} chunks instead of {expected}", chunks.len())));
            }
            Ok(chunks)
        });
        let nodes: Vec<Vec<Option<Digest>>> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        Ok(ChunkList::new(nodes.concat()))
    }

    /// Returns the size of the image in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chunks.saturating_mul(CHUNK as u64)
    }
}

/// Reads a blob of an image, and verifies it.
pub(super) async fn read(blobs: &Blobs, digest: &Digest, limit: u64) -> Result<Bytes> {
    match blobs.read(digest, limit).await {
        Ok(found) => found.ok_or_else(|| Error::Missing(digest.clone())),
        Err(error) if error.fault() == Fault::Damaged => Err(Error::Damaged(digest.clone())),
        Err(error) => Err(error.into()),
    }
}
