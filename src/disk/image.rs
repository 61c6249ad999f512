//! An image in use.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::{Mutex, MutexGuard};

use super::chunk;
use super::error::{Error, Result};
use super::list::{CHUNK, ChunkList};
use super::protocol::KeptDisk;
use super::saved::{self, SavedDisk};
use crate::domain::Digest;
use crate::store::Blobs;
use crate::transfer::BytesSource;

/// How long a read waits for a chunk.
const LATEST: Duration = Duration::from_secs(30);

/// How many chunks are fetched ahead, or written, at once.
const AT_ONCE: usize = 16;

/// What the local copy has of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    /// Nothing: it has these bytes in the store.
    Remote(Digest),
    /// All of it, as in the store.
    Local,
    /// All of it, other than in the store.
    Changed,
}

/// An image in use. The local copy is a sparse file, into which chunks come when they are read. What is written stays there until it
/// is saved.
#[derive(Debug)]
pub struct Image {
    blobs: Blobs,
    file: Arc<File>,
    list: ChunkList,
    /// Locked while a chunk comes, so that it comes once.
    slots: Vec<Mutex<Slot>>,
    reads: StdMutex<Reads>,
}

/// The chunks of the store that were read, in the order of their first reads.
#[derive(Debug, Default)]
struct Reads {
    order: Vec<u32>,
    seen: HashSet<u32>,
}

impl Image {
    /// Opens an image. Creates the local copy, which must not exist.
    ///
    /// # Errors
    /// If the local copy cannot be created.
    pub fn open(blobs: Blobs, list: ChunkList, local: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(local)?;
        file.set_len(list.size())?;
        let slot = |chunk: &Option<Digest>| Mutex::new(chunk.clone().map_or(Slot::Local, Slot::Remote));
        let slots = list.chunks().iter().map(slot).collect();
        Ok(Self { blobs, file: Arc::new(file), list, slots, reads: StdMutex::default() })
    }

    /// Returns the size of the image in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.list.size()
    }

    /// Returns the chunks of the store that were read, in the order of their first reads, also if they had come ahead.
    #[must_use]
    pub fn reads(&self) -> Vec<u32> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).order.clone()
    }

    /// Reads bytes at this offset.
    ///
    /// # Errors
    /// If they are outside of the image, or a chunk does not come.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        for (place, _) in self.places(offset, length as u64)? {
            drop(self.fetched(place).await?);
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Writes bytes at this offset.
    ///
    /// # Errors
    /// If they are outside of the image, the rest of a chunk does not come, or the local copy cannot be written.
    pub async fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (place, within) in self.places(offset, bytes.len() as u64)? {
            let (now, later) = rest.split_at(within.len());
            let mut slot = self.to_change(place, within.len()).await?;
            self.file.write_all_at(now, start_of(place) + within.start as u64)?;
            *slot = Slot::Changed;
            rest = later;
        }
        Ok(())
    }

    /// Makes bytes zero, and frees their place in the local copy.
    ///
    /// # Errors
    /// As of [`Image::write`].
    pub async fn discard(&self, offset: u64, length: u64) -> Result<()> {
        for (place, within) in self.places(offset, length)? {
            let mut slot = self.to_change(place, within.len()).await?;
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, hole, start_of(place) + within.start as u64, within.len() as u64).map_err(io::Error::from)?;
            // A filesystem discards all that is free, and most of that was free before.
            let is_as_saved = within.len() == CHUNK && self.list.chunks().get(place) == Some(&None);
            *slot = if is_as_saved { Slot::Local } else { Slot::Changed };
        }
        Ok(())
    }

    /// Fetches chunks ahead of their reads, in this order. A chunk that does not come is fetched again when it is read.
    pub async fn fetch_ahead(&self, places: &[u32]) {
        let places: Vec<usize> = places.iter().filter_map(|place| usize::try_from(*place).ok()).collect();
        let fetches = stream::iter(places).map(|place| async move { drop(self.slot(place, false).await) });
        fetches.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// Writes the changed chunks to the store; with `mends` also those that it has. The caller must not change the image at the same
    /// time. Returns the image as it is now.
    ///
    /// # Errors
    /// If the store does not accept a chunk.
    pub async fn save(&self, before: Option<&SavedDisk>, mends: bool) -> Result<KeptDisk> {
        let mut changed = Vec::new();
        for (place, slot) in self.slots.iter().enumerate() {
            if *slot.lock().await == Slot::Changed {
                changed.push(place);
            }
        }
        let packed: Vec<(usize, Option<Digest>, u64)> =
            stream::iter(changed).map(|place| self.save_chunk(place, mends)).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut list = self.list.clone();
        let mut new = 0;
        for (place, digest, bytes) in packed {
            list.set(place, digest);
            new += bytes;
        }
        let saved = SavedDisk::save(&self.blobs, &list, before).await?;
        let used = list.chunks().iter().flatten().count() as u64 * CHUNK as u64;
        Ok(KeptDisk { saved, reads: self.reads(), uploaded: new, used })
    }

    async fn save_chunk(&self, place: usize, mends: bool) -> Result<(usize, Option<Digest>, u64)> {
        let file = Arc::clone(&self.file);
        let packed = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; CHUNK];
            file.read_exact_at(&mut bytes, start_of(place))?;
            chunk::pack(&bytes)
        });
        let Some(bytes) = packed.await.map_err(io::Error::other)?? else { return Ok((place, None, 0)) };
        let (size, source) = (bytes.len() as u64, BytesSource::new(bytes));
        let is_new = if mends { self.blobs.rewrite(&source).await.map(|()| true) } else { self.blobs.keep(&source).await }?;
        Ok((place, Some(source.digest().clone()), if is_new { size } else { 0 }))
    }

    /// Returns the chunks that a range touches, each with the range in it.
    fn places(&self, offset: u64, length: u64) -> Result<impl Iterator<Item = (usize, Range<usize>)> + use<>> {
        let outside = || Error::Outside(offset, offset.saturating_add(length), self.size());
        let end = offset.checked_add(length).filter(|end| *end <= self.size()).ok_or_else(outside)?;
        let (first, last) = (offset / CHUNK as u64, end.div_ceil(CHUNK as u64));
        let (first, last) = (usize::try_from(first).map_err(|_| outside())?, usize::try_from(last).map_err(|_| outside())?);
        let within = move |place: usize| {
            let start = start_of(place);
            let from = usize::try_from(offset.saturating_sub(start)).unwrap_or_default();
            from..usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK)
        };
        Ok((first..if length == 0 { first } else { last }).map(move |place| (place, within(place))))
    }

    /// Returns a chunk's slot when the local copy has all of it.
    async fn fetched(&self, place: usize) -> Result<MutexGuard<'_, Slot>> {
        self.slot(place, true).await
    }

    /// Returns the slot of a chunk that will be changed, in part or as a whole.
    async fn to_change(&self, place: usize, length: usize) -> Result<MutexGuard<'_, Slot>> {
        match self.slots.get(place) {
            Some(slot) if length == CHUNK => Ok(slot.lock().await),
            _ => self.fetched(place).await,
        }
    }

    async fn slot(&self, place: usize, is_read: bool) -> Result<MutexGuard<'_, Slot>> {
        let outside = || Error::Outside(start_of(place), start_of(place + 1), self.size());
        let mut slot = self.slots.get(place).ok_or_else(outside)?.lock().await;
        if let Slot::Remote(digest) = &*slot {
            let digest = digest.clone();
            let late = |_| Error::Late(digest.clone(), LATEST.as_secs());
            let bytes = tokio::time::timeout(LATEST, self.fetch(&digest)).await.map_err(late)??;
            // Not on another thread: if this future is dropped, nobody may write here later.
            self.file.write_all_at(&bytes, start_of(place))?;
            *slot = Slot::Local;
        }
        if is_read {
            self.note_read(place);
        }
        Ok(slot)
    }

    fn note_read(&self, place: usize) {
        let is_saved = self.list.chunks().get(place).is_some_and(Option::is_some);
        let Some(place) = u32::try_from(place).ok().filter(|_| is_saved) else { return };
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.seen.insert(place) {
            reads.order.push(place);
        }
    }

    /// Reads a chunk from the store, and verifies it.
    async fn fetch(&self, digest: &Digest) -> Result<Vec<u8>> {
        let packed = saved::read(&self.blobs, digest, chunk::LARGEST).await?;
        let unpacked = tokio::task::spawn_blocking(move || chunk::unpack(&packed)).await.map_err(io::Error::other)?;
        unpacked.map_err(|error| Error::Malformed(digest.clone(), error.to_string()))
    }
}

fn start_of(place: usize) -> u64 {
    place as u64 * CHUNK as u64
}
