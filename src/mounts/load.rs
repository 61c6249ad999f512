//! Brings a saved mount in: reads its list, and then its packs.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::io::AsyncReadExt as _;
use tokio_util::task::AbortOnDropHandle;

use super::error::{Error, Result};
use super::file_list::{self, Chunk, FileList, Frame, LARGEST_FRAME, LARGEST_LIST, LARGEST_PACK, Pack};
use super::pack::cores;
use super::parts::PartSink;
use super::saved::SavedMount;
use crate::domain::{Descriptor, Digest};
use crate::store::{self, Blobs, Fault, Name};

/// The most packs in memory that are read at a time.
const READS: usize = 3;

/// The size of a buffer, in bytes: the largest pack that hakobi writes.
const USUAL_PACK: usize = 8 << 20;

/// The most buffers of a kind to use again.
const MOST_BUFFERS: usize = 8;

/// A chunk to read out of a frame.
#[derive(Debug, Clone)]
struct Wanted {
    /// The place of the chunk in the list.
    place: u32,
    digest: Digest,
    start: usize,
    end: usize,
}

/// A frame to read, with its chunks.
#[derive(Debug, Clone)]
struct WantedFrame {
    frame: Frame,
    chunks: Vec<Wanted>,
}

/// The checked content of a frame.
struct Unpacked {
    content: Bytes,
    chunks: Vec<Wanted>,
}

/// Reads the list of a mount's files.
///
/// # Errors
/// If it is missing, damaged, or not what the record says.
pub async fn load(blobs: &Blobs, saved: &SavedMount) -> Result<FileList> {
    let blob = saved.list.digest.clone();
    let bytes = match blobs.read(&blob, LARGEST_LIST).await {
        Ok(bytes) => bytes.ok_or_else(|| Error::Missing(blob.clone()))?,
        Err(error) => return Err(error.into()),
    };
    let decoded = tokio::task::spawn_blocking(move || file_list::decode(&bytes)).await.map_err(io::Error::other)?;
    let list = decoded.map_err(|why| Error::damaged(&blob, why))?;
    let packs = list.packs.iter().map(|pack| (&pack.blob.digest, pack.blob.size));
    let is_right = packs.eq(saved.packs.iter().map(|pack| (&pack.digest, pack.size)))
        && (list.bytes(), list.count()) == (saved.bytes, saved.files);
    if is_right { Ok(list) } else { Err(Error::damaged(&blob, "it differs from the record")) }
}

/// Reads the content of all files into the sink, in the order of the packs.
///
/// # Errors
/// If the sink fails, or a pack is missing or damaged. No wrong byte reaches the sink, but a part of the files may be there.
pub async fn stream(blobs: &Blobs, list: &FileList, sink: &mut dyn PartSink) -> Result<()> {
    let uses = uses(list);
    let cores = cores();
    let mut packs = wanted(list);
    let mut reading = VecDeque::new();
    let (mut packed, mut contents) = (Buffers::default(), Buffers::default());
    let mut unpacking = FuturesOrdered::new();
    loop {
        while reading.len() < READS
            && let Some((pack, frames)) = packs.next()
        {
            let (blobs, blob, buffer) = (blobs.clone(), pack.blob.clone(), packed.get());
            reading.push_back(AbortOnDropHandle::new(tokio::spawn(async move { read(&blobs, &blob, frames, buffer).await })));
        }
        let Some(read) = reading.pop_front() else { break };
        let (blob, bytes, frames) = read.await.map_err(io::Error::other)??;
        packed.put(bytes);
        for (bytes, wanted) in frames {
            unpacking.push_back(unpack(blobs.clone(), blob.clone(), bytes, wanted, contents.get()));
            while unpacking.len() >= cores
                && let Some(unpacked) = unpacking.next().await
            {
                contents.put(give(unpacked?, &uses, sink).await?);
            }
        }
    }
    while let Some(unpacked) = unpacking.next().await {
        give(unpacked?, &uses, sink).await?;
    }
    Ok(())
}

/// Buffers to use again. Otherwise the allocator of each thread keeps its share of memory.
#[derive(Default)]
struct Buffers(Vec<Bytes>);

impl Buffers {
    /// Returns a buffer that nobody uses any more, or a new one.
    fn get(&mut self) -> BytesMut {
        let unused = self.0.iter().position(Bytes::is_unique).map(|place| self.0.swap_remove(place));
        let mut buffer = unused.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer that may still be in use.
    fn put(&mut self, bytes: Bytes) {
        if self.0.len() < MOST_BUFFERS {
            self.0.push(bytes);
        }
    }
}

/// Returns all uses of chunks: the chunk, the file, and the position there, by chunk.
fn uses(list: &FileList) -> Vec<(u32, u32, u64)> {
    let mut uses = Vec::with_capacity(list.parts.len());
    for (number, file) in (0..).zip(&list.files) {
        uses.extend(list.parts_of(file).iter().map(|part| (part.chunk, number, part.offset)));
    }
    uses.sort_unstable();
    uses
}

/// Returns the packs with the frames to read of each. The chunks are in the order of packs and frames.
fn wanted(list: &FileList) -> impl Iterator<Item = (&Pack, Vec<WantedFrame>)> + Send {
    let mut places = 0..;
    let packs = list.chunks.chunk_by(|one, other| one.pack == other.pack);
    packs.filter_map(move |of_pack| {
        let mut pack = None;
        let mut frames = Vec::new();
        for of_frame in of_pack.chunk_by(|one, other| one.frame == other.frame) {
            let wanted = |chunk: &Chunk| {
                let (start, length) = (chunk.start as usize, chunk.length as usize);
                Wanted { place: places.next().unwrap_or(u32::MAX), digest: chunk.digest.clone(), start, end: start + length }
            };
            let chunks: Vec<Wanted> = of_frame.iter().map(wanted).collect();
            let first = of_frame.first()?;
            pack = list.packs.get(first.pack as usize);
            frames.push(WantedFrame { frame: pack?.frames.get(first.frame as usize)?.clone(), chunks });
        }
        Some((pack?, frames))
    })
}

/// Reads the frames of a pack with one request. Returns the blob, all bytes, and those of each frame.
async fn read(
    blobs: &Blobs,
    blob: &Descriptor,
    frames: Vec<WantedFrame>,
    mut buffer: BytesMut,
) -> Result<(Digest, Bytes, Vec<(Bytes, WantedFrame)>)> {
    let begin = frames.first().map_or(0, |wanted| u64::from(wanted.frame.offset));
    let end = frames.last().map_or(0, |wanted| u64::from(wanted.frame.offset) + u64::from(wanted.frame.packed));
    let length = usize::try_from(end - begin).map_err(io::Error::other)?;
    // The digest of each chunk is checked below, so the digest of the whole pack is not needed.
    let opened = blobs.store().read(&Name::blob(&blob.digest), begin..end).await?;
    let mut stream = opened.ok_or_else(|| Error::Missing(blob.digest.clone()))?.take(length as u64);
    let failed = |error| store::Error::new(Fault::Unreachable, format!("failed to read blob {}: {error}", blob.digest));
    buffer.reserve(length.max(USUAL_PACK));
    while buffer.len() < length {
        if stream.read_buf(&mut buffer).await.map_err(failed)? == 0 {
            return Err(blame(blobs, &blob.digest, "it is too short").await);
        }
    }
    let bytes = buffer.freeze();
    let mut parts = Vec::with_capacity(frames.len());
    for wanted in frames {
        let start = usize::try_from(u64::from(wanted.frame.offset) - begin).map_err(io::Error::other)?;
        parts.push((bytes.slice(start..start + wanted.frame.packed as usize), wanted));
    }
    Ok((blob.digest.clone(), bytes, parts))
}

/// Decompresses a frame and checks its chunks on a blocking thread.
async fn unpack(blobs: Blobs, blob: Digest, bytes: Bytes, wanted: WantedFrame, mut buffer: BytesMut) -> Result<Unpacked> {
    let unpacked = tokio::task::spawn_blocking(move || -> io::Result<Unpacked> {
        let length = wanted.frame.length as usize;
        buffer.reserve(length.max(LARGEST_FRAME as usize));
        buffer.resize(length, 0);
        if zstd::bulk::decompress_to_buffer(&bytes, &mut buffer[..])? != length {
            return Err(io::Error::other("a frame has another length"));
        }
        let content = buffer.freeze();
        let is_right =
            |chunk: &Wanted| content.get(chunk.start..chunk.end).is_some_and(|data| Digest::hash(data) == chunk.digest);
        if !wanted.chunks.iter().all(is_right) {
            return Err(io::Error::other("a chunk has another digest"));
        }
        Ok(Unpacked { content, chunks: wanted.chunks })
    });
    match unpacked.await.map_err(io::Error::other)? {
        Ok(unpacked) => Ok(unpacked),
        Err(error) => Err(blame(&blobs, &blob, &error.to_string()).await),
    }
}

/// Returns the error for a pack with wrong content. Reads it as a whole, so that from now on it counts as missing if it is damaged,
/// and the next save writes it again.
async fn blame(blobs: &Blobs, blob: &Digest, why: &str) -> Error {
    let _ = blobs.read(blob, LARGEST_PACK).await;
    Error::damaged(blob, why)
}

/// Gives chunks to all files that use them. Returns the frame's buffer.
async fn give(unpacked: Unpacked, uses: &[(u32, u32, u64)], sink: &mut dyn PartSink) -> Result<Bytes> {
    let Unpacked { content, chunks } = unpacked;
    for Wanted { place, start, end, .. } in chunks {
        let first = uses.partition_point(|(chunk, _, _)| *chunk < place);
        for (_, file, offset) in uses.iter().skip(first).take_while(|(chunk, _, _)| *chunk == place) {
            sink.part(*file, *offset, content.slice(start..end)).await?;
        }
    }
    Ok(content)
}
