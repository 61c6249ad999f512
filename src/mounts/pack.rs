//! Packs chunks: chunks into frames, which are compressed by themselves, frames into packs, and packs into the store.
//!
//! Few frames and packs are in memory at a time, whatever the mount weighs.

use std::io;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::task::{JoinHandle, JoinSet};

use super::error::{Error, Result};
use super::file_list::{Frame, LARGEST_FRAME, PACK_TYPE, Pack};
use crate::domain::{Descriptor, Digest};
use crate::store::Blobs;
use crate::transfer::{BlobSource, ByteStream, Identity};

/// The content of a frame, in bytes. Larger frames compress little better, and smaller ones are more to read and list.
const FRAME: usize = LARGEST_FRAME as usize;

/// The level of compression, which keeps up with a network of 1 Gbit/s on one core.
const LEVEL: i32 = 3;

/// The size of a pack, in bytes. S3 takes it in one request, and the packs under way fit into memory.
const PACK: usize = 8 << 20;

/// The most packs that are uploaded at a time.
const UPLOADS: usize = 3;

/// The buffers of one compression. They are used again and again: otherwise the allocator of each thread keeps its share of memory.
struct Press {
    compressor: zstd::bulk::Compressor<'static>,
    content: Vec<u8>,
    packed: Vec<u8>,
}

/// Packs the chunks that it gets.
pub struct Packer {
    blobs: Blobs,
    /// The number of threads that compress.
    cores: usize,
    /// The frame to fill: its number, chunks, and bytes.
    number: u32,
    frame: Vec<Bytes>,
    length: usize,
    compressing: FuturesOrdered<JoinHandle<io::Result<Press>>>,
    /// The pack to fill, and its frames.
    pack: BytesMut,
    frames: Vec<Frame>,
    uploads: JoinSet<Result<(usize, Pack, BytesMut)>>,
    /// Buffers without a use at the moment.
    presses: Vec<Press>,
    buffers: Vec<BytesMut>,
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
            pack: BytesMut::new(),
            frames: Vec::new(),
            uploads: JoinSet::new(),
            presses: Vec::new(),
            buffers: Vec::new(),
            packs: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds a chunk. Returns the number of its frame, and its position in the frame's content.
    ///
    /// # Errors
    /// If the upload of an earlier chunk failed.
    pub async fn add(&mut self, chunk: Bytes) -> Result<(u32, u32)> {
        if self.length > 0 && self.length + chunk.len() > FRAME {
            self.end_frame().await?;
        }
        let start = u32::try_from(self.length).map_err(io::Error::other)?;
        let number = self.number;
        self.length += chunk.len();
        self.frame.push(chunk);
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
        let frame = std::mem::take(&mut self.frame);
        self.length = 0;
        self.number += 1;
        let press = match self.presses.pop() {
            Some(press) => press,
            None => {
                Press { compressor: zstd::bulk::Compressor::new(LEVEL)?, content: Vec::with_capacity(FRAME), packed: Vec::new() }
            }
        };
        self.compressing.push_back(tokio::task::spawn_blocking(move || press.compress(frame)));
        while self.compressing.len() >= self.cores {
            if let Some(frame) = self.compressing.next().await {
                self.add_frame(frame.map_err(io::Error::other)??).await?;
            }
        }
        Ok(())
    }

    async fn add_frame(&mut self, frame: Press) -> Result<()> {
        if self.pack.len() + frame.packed.len() > PACK {
            self.end_pack().await?;
        }
        if self.pack.capacity() == 0 {
            self.pack = self.buffers.pop().unwrap_or_else(|| BytesMut::with_capacity(PACK));
        }
        let number = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.places.push((number(self.packs.len())?, number(self.frames.len())?));
        let (offset, packed) = (number(self.pack.len())?, number(frame.packed.len())?);
        self.frames.push(Frame { offset, packed, length: number(frame.content.len())? });
        self.pack.extend_from_slice(&frame.packed);
        self.presses.push(frame);
        Ok(())
    }

    async fn end_pack(&mut self) -> Result<()> {
        while self.uploads.len() >= UPLOADS {
            self.uploaded().await?;
        }
        let (bytes, frames) = (std::mem::take(&mut self.pack), std::mem::take(&mut self.frames));
        let (blobs, place) = (self.blobs.clone(), self.packs.len());
        self.packs.push(None);
        self.uploads.spawn(async move {
            let (pack, buffer) = upload(&blobs, bytes.freeze(), frames).await?;
            Ok((place, pack, buffer))
        });
        Ok(())
    }

    /// Waits for an upload. Returns whether there was one.
    async fn uploaded(&mut self) -> Result<bool> {
        let Some(done) = self.uploads.join_next().await else { return Ok(false) };
        let (place, pack, buffer) = done.map_err(io::Error::other)??;
        if let Some(of_pack) = self.packs.get_mut(place) {
            *of_pack = Some(pack);
        }
        if buffer.capacity() > 0 {
            self.buffers.push(buffer);
        }
        Ok(true)
    }
}

impl Press {
    /// Compresses the chunks of a frame.
    fn compress(mut self, frame: Vec<Bytes>) -> io::Result<Self> {
        self.content.clear();
        frame.iter().for_each(|chunk| self.content.extend_from_slice(chunk));
        drop(frame);
        self.packed.clear();
        self.packed.reserve_exact(zstd::zstd_safe::compress_bound(self.content.len()));
        self.compressor.compress_to_buffer(&self.content, &mut self.packed)?;
        Ok(self)
    }
}

/// Returns the number of threads for hashing and compression. More need more memory, and four are faster than any network.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

/// Uploads a pack. Returns its buffer, which is empty if the store still has the bytes.
async fn upload(blobs: &Blobs, bytes: Bytes, frames: Vec<Frame>) -> Result<(Pack, BytesMut)> {
    let hashed = bytes.clone();
    let digest = tokio::task::spawn_blocking(move || Digest::hash(&hashed)).await.map_err(io::Error::other)?;
    let source = PackSource { digest: digest.clone(), bytes };
    let blob = Descriptor::new(PACK_TYPE, digest, source.bytes.len() as u64);
    blobs.keep(&source).await?;
    let mut buffer = source.bytes.try_into_mut().unwrap_or_default();
    buffer.clear();
    Ok((Pack { blob, frames }, buffer))
}

/// A complete pack in memory.
struct PackSource {
    digest: Digest,
    bytes: Bytes,
}

#[async_trait]
impl BlobSource for PackSource {
    fn known(&self) -> Option<Identity> {
        Some(Identity { digest: self.digest.clone(), size: self.bytes.len() as u64 })
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(Box::pin(io::Cursor::new(self.bytes.slice(start..))))
    }

    async fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { digest: self.digest.clone(), size: self.bytes.len() as u64 })
    }
}
