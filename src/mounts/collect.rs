//! Collects the content that the process sends: hashes it, leaves out what the store has, and packs the rest.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::task::JoinHandle;

use super::chunk::Cut;
use super::error::Result;
use super::file_list::{FileList, Part};
use super::pack::{AllPacked, Packer, cores};
use crate::domain::Digest;
use crate::store::Blobs;

/// The chunks that are hashed together: their bytes and number.
const BATCH: usize = 1 << 20;
const MOST_CHUNKS: usize = 1024;

/// A chunk that the store lacked.
#[derive(Debug)]
pub struct NewChunk {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub length: u32,
    /// The number of its frame.
    pub frame: u32,
    /// The position in the frame's content.
    pub start: u32,
}

/// All content that the process sent. A part names a chunk of the earlier list, or after these a new one.
#[derive(Debug, Default)]
pub struct Collected {
    /// The parts, file by file.
    pub parts: Vec<Part>,
    /// The parts of each file that has any, by its number.
    pub files: HashMap<u32, Range<usize>>,
    /// The new chunks, by their frames and positions.
    pub chunks: Vec<NewChunk>,
    /// What became of the new chunks.
    pub packed: AllPacked,
}

/// Collects chunks.
pub struct Collector<'a> {
    before: &'a FileList,
    /// The usable chunks of the earlier list, by their digests.
    known: Vec<u32>,
    new: HashMap<Digest, u32>,
    cores: usize,
    batch: Vec<Cut>,
    bytes: usize,
    hashing: FuturesOrdered<JoinHandle<Vec<(Digest, Cut)>>>,
    packer: Packer,
    collected: Collected,
}

impl<'a> Collector<'a> {
    /// Returns a collector. Only chunks in usable packs count as known.
    pub fn new(blobs: &Blobs, before: &'a FileList, is_usable: &[bool]) -> Self {
        let is_usable = |pack: u32| usize::try_from(pack).ok().and_then(|pack| is_usable.get(pack)).copied().unwrap_or_default();
        let usable = (0..).zip(&before.chunks).filter(|(_, chunk)| is_usable(chunk.pack));
        let mut known: Vec<u32> = usable.map(|(place, _)| place).collect();
        known.sort_unstable_by_key(|place| before.chunk(*place).map(|chunk| &chunk.digest));
        Self {
            before,
            known,
            new: HashMap::new(),
            cores: cores(),
            batch: Vec::new(),
            bytes: 0,
            hashing: FuturesOrdered::new(),
            packer: Packer::new(blobs),
            collected: Collected::default(),
        }
    }

    /// Adds the chunks, file by file.
    ///
    /// # Errors
    /// If an upload failed.
    pub async fn add(&mut self, cuts: &mut Vec<Cut>) -> Result<()> {
        for cut in cuts.drain(..) {
            self.bytes += cut.data.len();
            self.batch.push(cut);
            if self.bytes >= BATCH || self.batch.len() >= MOST_CHUNKS {
                self.hash().await?;
            }
        }
        Ok(())
    }

    /// Finishes the uploads.
    ///
    /// # Errors
    /// If an upload failed.
    pub async fn finish(mut self) -> Result<Collected> {
        self.hash().await?;
        while let Some(hashed) = self.hashing.next().await {
            self.place(hashed.map_err(io::Error::other)?).await?;
        }
        self.collected.packed = self.packer.finish().await?;
        Ok(self.collected)
    }

    async fn hash(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let hashed = move || batch.into_iter().map(|cut| (Digest::hash(&cut.data), cut)).collect();
        self.hashing.push_back(tokio::task::spawn_blocking(hashed));
        while self.hashing.len() >= self.cores {
            if let Some(hashed) = self.hashing.next().await {
                self.place(hashed.map_err(io::Error::other)?).await?;
            }
        }
        Ok(())
    }

    async fn place(&mut self, hashed: Vec<(Digest, Cut)>) -> Result<()> {
        for (digest, Cut { file, offset, data }) in hashed {
            let chunk = match self.known(&digest) {
                Some(chunk) => chunk,
                None => self.pack(digest, data).await?,
            };
            let place = self.collected.parts.len();
            self.collected.parts.push(Part { offset, chunk });
            self.collected.files.entry(file).or_insert(place..place).end = place + 1;
        }
        Ok(())
    }

    fn known(&self, digest: &Digest) -> Option<u32> {
        if let Some(chunk) = self.new.get(digest) {
            return Some(*chunk);
        }
        let found = self.known.binary_search_by(|place| self.before.chunk(*place).map(|chunk| &chunk.digest).cmp(&Some(digest)));
        self.known.get(found.ok()?).copied()
    }

    async fn pack(&mut self, digest: Digest, data: Bytes) -> Result<u32> {
        let number = self.before.chunks.len() + self.collected.chunks.len();
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let (frame, start) = self.packer.add(data).await?;
        self.new.insert(digest.clone(), number);
        self.collected.chunks.push(NewChunk { digest, length, frame, start });
        Ok(number)
    }
}
