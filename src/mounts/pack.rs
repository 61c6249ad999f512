//! Packs chunks: chunks into frames, which are compressed by themselves, frames into packs, and packs into the store.
//!
//! Few frames and packs are in memory at a time, whatever the mount weighs.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::io::StreamReader;

use super::error::{Error, Result};
use super::file_list::{Frame, LARGEST_CHUNK, LARGEST_FRAME, PACK_TYPE, Pack};
use crate::domain::{Descriptor, Digest, Hasher};
use crate::store::Blobs;
use crate::transfer::{BlobSource, ByteStream, Identity};

/// The content of a frame, in bytes. Larger frames compress little better, and smaller ones are more to read and list.
const FRAME: usize = (LARGEST_FRAME - LARGEST_CHUNK) as usize;

/// The level of compression, which keeps up with a network of 1 Gbit/s on one core.
const LEVEL: i32 = 3;

/// The size of a pack, in bytes. S3 takes it in one request, and the packs under way fit into memory.
const PACK: usize = 8 << 20;

/// The most packs that are uploaded at a time.
const UPLOADS: usize = 3;

/// A compressed frame, with the number of bytes of its content.
type Packed = io::Result<(Bytes, u32)>;

/// Packs the chunks that it gets.
pub struct Packer {
    blobs: Blobs,
    /// The number of threads that compress.
    cores: usize,
    /// The frame to fill: its number, chunks, and bytes.
    number: u32,
    frame: Vec<Bytes>,
    length: usize,
    compressing: FuturesOrdered<JoinHandle<Packed>>,
    /// The pack to fill, and its size.
    pack: Vec<(Bytes, u32)>,
    size: usize,
    uploads: JoinSet<Result<(usize, Pack)>>,
    packs: Vec<Option<Pack>>,
    /// The pack and place of each frame.
    places: Vec<(u32, u32)>,
}

/// What became of the chunks.
#[derive(Debug, Default)]
pub struct AllPacked {
    /// The packs.
    pub packs: Vec<Pack>,
    /// The pack of each frame, and its place there.
    pub places: Vec<(u32, u32)>,
}

impl Packer {
    /// Returns a packer that uploads into this store.
    pub fn new(blobs: &Blobs) -> Self {
        Self {
            blobs: blobs.clone(),
            cores: cores(),
            number: 0,
            frame: Vec::new(),
            length: 0,
            compressing: FuturesOrdered::new(),
            pack: Vec::new(),
            size: 0,
            uploads: JoinSet::new(),
            packs: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds a chunk. Returns the number of its frame, and its position in the frame's content.
    ///
    /// # Errors
    /// If the upload of an earlier chunk failed.
    pub async fn add(&mut self, chunk: Bytes) -> Result<(u32, u32)> {
        let start = u32::try_from(self.length).map_err(io::Error::other)?;
        let number = self.number;
        self.length += chunk.len();
        self.frame.push(chunk);
        if self.length >= FRAME {
            self.end_frame().await?;
        }
        Ok((number, start))
    }

    /// Packs and uploads the rest.
    ///
    /// # Errors
    /// If an upload failed.
    pub async fn finish(mut self) -> Result<AllPacked> {
        if self.length > 0 {
            self.end_frame().await?;
        }
        while let Some(frame) = self.compressing.next().await {
            self.add_frame(frame.map_err(io::Error::other)??).await?;
        }
        if !self.pack.is_empty() {
            self.end_pack().await?;
        }
        while self.uploaded().await? {}
        let packs: Option<Vec<Pack>> = self.packs.into_iter().collect();
        let packs = packs.ok_or_else(|| Error::Unfit("a pack was not uploaded".to_owned()))?;
        Ok(AllPacked { packs, places: self.places })
    }

    async fn end_frame(&mut self) -> Result<()> {
        let (frame, length) = (std::mem::take(&mut self.frame), std::mem::take(&mut self.length));
        self.number += 1;
        self.compressing.push_back(tokio::task::spawn_blocking(move || compressed(&frame, length)));
        while self.compressing.len() > self.cores {
            if let Some(frame) = self.compressing.next().await {
                self.add_frame(frame.map_err(io::Error::other)??).await?;
            }
        }
        Ok(())
    }

    async fn add_frame(&mut self, frame: (Bytes, u32)) -> Result<()> {
        if !self.pack.is_empty() && self.size + frame.0.len() > PACK {
            self.end_pack().await?;
        }
        let place = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.places.push((place(self.packs.len())?, place(self.pack.len())?));
        self.size += frame.0.len();
        self.pack.push(frame);
        Ok(())
    }

    async fn end_pack(&mut self) -> Result<()> {
        while self.uploads.len() >= UPLOADS {
            self.uploaded().await?;
        }
        let (frames, blobs, place) = (std::mem::take(&mut self.pack), self.blobs.clone(), self.packs.len());
        self.size = 0;
        self.packs.push(None);
        self.uploads.spawn(async move { Ok((place, upload(&blobs, frames).await?)) });
        Ok(())
    }

    /// Waits for an upload. Returns whether there was one.
    async fn uploaded(&mut self) -> Result<bool> {
        let Some(done) = self.uploads.join_next().await else { return Ok(false) };
        let (place, pack) = done.map_err(io::Error::other)??;
        if let Some(of_pack) = self.packs.get_mut(place) {
            *of_pack = Some(pack);
        }
        Ok(true)
    }
}

/// Returns the number of threads for hashing and compression.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(8)
}

fn compressed(frame: &[Bytes], length: usize) -> Packed {
    let packed = zstd::bulk::compress(&frame.concat(), LEVEL)?;
    Ok((packed.into(), u32::try_from(length).map_err(io::Error::other)?))
}

async fn upload(blobs: &Blobs, frames: Vec<(Bytes, u32)>) -> Result<Pack> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Hasher::default();
        frames.iter().for_each(|(bytes, _)| hasher.update(bytes));
        (hasher.digest(), frames)
    });
    let (digest, frames) = hashed.await.map_err(io::Error::other)?;
    let mut offset = 0;
    let mut listed = Vec::new();
    for (bytes, length) in &frames {
        let packed = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        listed.push(Frame { offset, packed, length: *length });
        offset += packed;
    }
    let blob = Descriptor::new(PACK_TYPE, digest.clone(), offset.into());
    blobs.keep(&PackSource { frames: frames.into_iter().map(|(bytes, _)| bytes).collect(), digest, size: offset.into() }).await?;
    Ok(Pack { blob, frames: listed })
}

/// A complete pack in memory.
struct PackSource {
    frames: Vec<Bytes>,
    digest: Digest,
    size: u64,
}

#[async_trait]
impl BlobSource for PackSource {
    fn known(&self) -> Option<Identity> {
        Some(Identity { digest: self.digest.clone(), size: self.size })
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let mut skipped = usize::try_from(offset).map_err(io::Error::other)?;
        let mut rest = Vec::with_capacity(self.frames.len());
        for frame in &self.frames {
            let cut = skipped.min(frame.len());
            skipped -= cut;
            rest.push(io::Result::Ok(frame.slice(cut..)));
        }
        rest.retain(|frame| frame.as_ref().is_ok_and(|frame| !frame.is_empty()));
        Ok(Box::pin(StreamReader::new(futures::stream::iter(rest))))
    }

    async fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { digest: self.digest.clone(), size: self.size })
    }
}
