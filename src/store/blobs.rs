//! The blobs of a store, by their digests. hakobi verifies them while they stream; from then on, a damaged blob counts as missing.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::watch;

use super::sums::{PART, Parted, Summed, Sums, Trouble};
use super::{Error, Fault, Name, ObjectStore, Result, read_small};
use crate::domain::{Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream, BytesSource, Identity};

/// Largest blob in a store, in bytes.
const LARGEST: u64 = 1 << 40;

/// The blobs of a store. Cheap to clone; clones share what they know of damaged blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    seen: watch::Sender<Seen>,
}

/// What a run knows of a store's blobs.
#[derive(Debug, Default)]
struct Seen {
    damaged: HashSet<Digest>,
    /// Whether a blob turned out to be damaged while it streamed: the cause may have damaged other blobs too.
    distrusted: bool,
    /// Other objects that cannot be parsed.
    unusable: BTreeSet<Name>,
    /// Records and pointers that this run read or wrote.
    used: BTreeSet<Name>,
    /// Whether it looked at all steps of an image.
    is_whole: bool,
    /// Blobs that this run wrote, and that did not turn out to be damaged since.
    written: HashSet<Digest>,
    /// Why a read failed: the first fault.
    unread: Option<String>,
}

impl Seen {
    fn damaged(&mut self, digest: &Digest) {
        self.written.remove(digest);
        self.damaged.insert(digest.clone());
    }

    /// Notes a damaged blob that a reader already has in part.
    fn distrusted(&mut self, digest: &Digest) {
        self.damaged(digest);
        self.distrusted = true;
    }
}

impl Blobs {
    /// Returns the blobs of this store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, seen: watch::Sender::default() }
    }

    /// Returns the store itself.
    #[must_use]
    pub fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// Returns the blobs that turned out to be damaged.
    #[must_use]
    pub fn damaged(&self) -> HashSet<Digest> {
        self.seen.borrow().damaged.clone()
    }

    /// Returns whether a damaged blob was passed on to a reader.
    #[must_use]
    pub fn is_distrusted(&self) -> bool {
        self.seen.borrow().distrusted
    }

    /// Returns other objects that exist but cannot be parsed: each is a miss.
    #[must_use]
    pub fn unusable(&self) -> BTreeSet<Name> {
        self.seen.borrow().unusable.clone()
    }

    /// Notes that an object exists but cannot be parsed.
    pub fn note_unusable(&self, name: &Name) {
        self.seen.send_if_modified(|seen| {
            seen.unusable.insert(name.clone());
            false
        });
    }

    /// Notes that this run used a record or a pointer.
    pub fn note_used(&self, record: &Name) {
        self.seen.send_if_modified(|seen| {
            seen.used.insert(record.clone());
            false
        });
    }

    /// Notes that this run looked at all steps of an image.
    pub fn note_whole(&self) {
        self.seen.send_if_modified(|seen| {
            seen.is_whole = true;
            false
        });
    }

    /// Returns the records and pointers that this run used, and whether it looked at all steps of an image.
    #[must_use]
    pub fn used(&self) -> (BTreeSet<Name>, bool) {
        let seen = self.seen.borrow();
        (seen.used.clone(), seen.is_whole)
    }

    /// Returns why a read has failed since the last call, or `None`. The reader may not have reported it.
    #[must_use]
    pub fn unread(&self) -> Option<String> {
        let mut fault = None;
        self.seen.send_if_modified(|seen| {
            fault = seen.unread.take();
            false
        });
        fault
    }

    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            let text = error.hint_text().map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"));
            unread(&self.seen, text);
        }
        result
    }

    /// Waits until a blob that was passed on turns out to be damaged.
    pub async fn found_damaged(&self) {
        // This object has the sender, so it exists as long as this future waits.
        let _ = self.seen.subscribe().wait_for(|seen| seen.distrusted).await;
    }

    /// Returns the size of a blob in bytes, or `None` if the store lacks it. A damaged blob counts as missing. After a damaged blob
    /// was passed on, only blobs that this run wrote count in this run: the cause may have damaged other blobs too.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let believed = {
            let seen = self.seen.borrow();
            seen.written.contains(digest) || !(seen.distrusted || seen.damaged.contains(digest))
        };
        if believed { self.noted(self.store.size(&Name::blob(digest)).await) } else { Ok(None) }
    }

    /// Opens a blob at this offset. Returns `None` if the store lacks it. Read from 0, the stream ends with an error if the bytes
    /// do not match the digest. If the size is given and the store has the checksums of the blob's parts, the stream passes on no
    /// damaged byte, at any offset. Without checksums, it withholds at least the last bytes, so that no reader gets a damaged blob
    /// completely.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(&self, digest: &Digest, size: Option<u64>, offset: u64) -> Result<Option<ByteStream>> {
        if let Some(size) = size.filter(|size| *size > 0) {
            let sums = async { if size > PART { Sums::read(&*self.store, digest, size).await } else { Ok(None) } };
            let name = Name::blob(digest);
            let read = self.store.read(&name, Parted::start(offset)..u64::MAX);
            let (sums, stream) = self.noted(futures::try_join!(sums, read))?;
            let Some(stream) = stream else { return Ok(None) };
            if sums.is_some() || size <= PART {
                let (seen, blob) = (self.seen.clone(), digest.clone());
                let told = move |trouble| match trouble {
                    Trouble::Damaged => {
                        seen.send_modify(|seen| seen.distrusted(&blob));
                        io::Error::other(damaged(&blob))
                    }
                    Trouble::Broken(error) => {
                        unread(&seen, error.to_string());
                        error
                    }
                };
                return Ok(Some(Box::pin(Parted::new(stream, digest.clone(), size, sums, offset, told))));
            }
        }
        // Without checksums of its parts, a blob can only be verified from its beginning.
        let start = if size.is_some() { 0 } else { offset };
        let stream = self.noted(self.store.read(&Name::blob(digest), start..u64::MAX).await)?;
        let Some(stream) = stream else { return Ok(None) };
        if start > 0 {
            return Ok(Some(stream));
        }
        let mut verified: ByteStream = Box::pin(Verified {
            inner: stream,
            expected: digest.clone(),
            hasher: Some(Hasher::default()),
            left: size.unwrap_or(u64::MAX),
            failed: false,
            seen: self.seen.clone(),
        });
        let skipped = tokio::io::copy(&mut (&mut verified).take(offset - start), &mut tokio::io::sink()).await;
        skipped.map_err(|error| Error::new(Fault::Damaged, error.to_string()))?;
        Ok(Some(verified))
    }

    /// Reads a small blob and verifies it. Returns `None` if the store lacks it.
    ///
    /// # Errors
    /// If it has more than `limit` bytes, is damaged, or the store cannot be read.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>> {
        let read = read_small(&*self.store, &Name::blob(digest), limit).await.inspect_err(|error| {
            if error.fault() == Fault::Damaged {
                self.seen.send_modify(|seen| seen.damaged(digest));
            }
        });
        let Some(bytes) = read? else { return Ok(None) };
        if Digest::hash(&bytes) != *digest {
            self.seen.send_modify(|seen| seen.damaged(digest));
            return Err(damaged(digest));
        }
        Ok(Some(bytes))
    }

    /// Removes a blob.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn remove(&self, digest: &Digest) -> Result<()> {
        self.store.delete(&Name::blob(digest)).await?;
        self.store.delete(&Name::sums(digest)).await
    }

    /// Writes a blob that the store lacks. Returns whether it was new.
    ///
    /// # Errors
    /// If its source breaks off, or the store does not accept it.
    pub async fn keep(&self, source: &dyn BlobSource) -> Result<bool> {
        let identity = identity(source).await?;
        // A blob of another size is damaged, and this write repairs it.
        if self.size(&identity.digest).await? == Some(identity.size) {
            return Ok(false);
        }
        self.rewrite(source).await?;
        Ok(true)
    }

    /// Writes a blob, also if the store has it: it may be damaged there.
    ///
    /// # Errors
    /// If its source breaks off, or the store does not accept it.
    pub async fn rewrite(&self, source: &dyn BlobSource) -> Result<()> {
        let identity = identity(source).await?;
        let summed = Summed::new(source, identity.size);
        self.store.write(&Name::blob(&identity.digest), &summed).await?;
        if let Some(sums) = summed.sums() {
            let bytes = serde_json::to_vec(&sums).map_err(|error| broken(error.into()))?;
            self.store.write(&Name::sums(&identity.digest), &BytesSource::new(bytes.into())).await?;
        }
        self.seen.send_if_modified(|seen| {
            seen.written.insert(identity.digest);
            false
        });
        Ok(())
    }
}

/// Returns what a blob is, unless it is too large for one.
async fn identity(source: &dyn BlobSource) -> Result<Identity> {
    let identity = source.identity().await.map_err(broken)?;
    match identity.size {
        ..=LARGEST => Ok(identity),
        size => Err(broken(io::Error::other(format!("{size} bytes exceed the limit for a layer")))),
    }
}

fn broken(error: io::Error) -> Error {
    Error::new(Fault::Source, format!("failed to read the bytes to save: {error}"))
}

fn damaged(digest: &Digest) -> Error {
    Error::new(Fault::Damaged, format!("blob {digest} is damaged")).hint("remove it with `hakobi cache verify --repair`")
}

fn unread(seen: &watch::Sender<Seen>, why: String) {
    seen.send_if_modified(|seen| {
        seen.unread.get_or_insert(why);
        false
    });
}

/// Passes bytes on, and fails at the end if they do not match the digest.
struct Verified {
    inner: ByteStream,
    expected: Digest,
    /// `None` after the check.
    hasher: Option<Hasher>,
    /// The number of bytes that remain.
    left: u64,
    failed: bool,
    seen: watch::Sender<Seen>,
}

impl AsyncRead for Verified {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::Error::other(damaged(&self.expected))));
        }
        let before = buffer.filled().len();
        if let Err(error) = std::task::ready!(self.inner.as_mut().poll_read(context, buffer)) {
            unread(&self.seen, error.to_string());
            return Poll::Ready(Err(error));
        }
        let new = &buffer.filled()[before..];
        let (passed, at_end) = (new.len() as u64, new.is_empty() && buffer.remaining() > 0);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(new);
        }
        self.left = self.left.saturating_sub(passed);
        let ended = self.left == 0 || at_end;
        if ended && self.hasher.take().is_some_and(|hasher| hasher.digest() != self.expected) {
            buffer.set_filled(before);
            self.failed = true;
            self.seen.send_modify(|seen| seen.distrusted(&self.expected));
            return Poll::Ready(Err(io::Error::other(damaged(&self.expected))));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_flipped_byte_is_never_passed_off() {
        let store = Arc::new(MemoryStore::default());
        let blobs = Blobs::new(store.clone());
        let digest = Digest::hash(b"layer");
        let layer = BytesSource::new("layer".into());
        assert!(blobs.keep(&layer).await.expect("kept"));
        assert!(!blobs.keep(&layer).await.expect("kept"));
        assert_eq!(blobs.read(&digest, 5).await.expect("read").as_deref(), Some(&b"layer"[..]));
        assert!(blobs.read(&digest, 4).await.is_err());
        store.set(&Name::blob(&digest), "lazer".into());
        for (size, passed_on) in [(None, 5), (Some(5), 0)] {
            let mut out = Vec::new();
            let error = blobs.open(&digest, size, 0).await.expect("opened").expect("there").read_to_end(&mut out).await;
            assert!(error.expect_err("damaged").to_string().contains("is damaged"));
            assert_eq!(out.len(), passed_on);
        }
        blobs.found_damaged().await;
        assert_eq!(blobs.read(&digest, 5).await.expect_err("damaged").fault(), Fault::Damaged);
        // From then on the blob is missing, and writing it again repairs it.
        assert_eq!(blobs.size(&digest).await.expect("an answer"), None);
        assert!(blobs.keep(&layer).await.expect("kept"));
        assert_eq!(blobs.size(&digest).await.expect("an answer"), Some(5));
        assert!(blobs.read(&digest, 5).await.is_ok());
    }

    #[tokio::test]
    async fn no_damaged_byte_of_a_large_blob_is_passed_on() {
        let part = usize::try_from(PART).expect("a length");
        let store = Arc::new(MemoryStore::default());
        let mut bytes: Vec<u8> = (0..3 * part + 100).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
        let digest = Digest::hash(&bytes);
        let size = bytes.len() as u64;
        assert!(Blobs::new(store.clone()).keep(&BytesSource::new(bytes.clone().into())).await.expect("kept"));
        let read = async |offset: usize| {
            let mut out = Vec::new();
            let blobs = Blobs::new(store.clone());
            let stream = blobs.open(&digest, Some(size), offset as u64).await.expect("opened");
            let mut stream = stream.expect("there");
            let read = stream.read_to_end(&mut out).await;
            assert_eq!(read.is_err(), blobs.damaged().contains(&digest));
            assert!(read.is_ok() || stream.read(&mut [0; 10]).await.is_err(), "it stays so");
            (read.is_ok(), out)
        };
        for offset in [0, 1, part, 2 * part - 1, bytes.len() - 1, bytes.len()] {
            assert_eq!(read(offset).await, (true, bytes[offset..].to_vec()), "from {offset}");
        }
        let whole = bytes.clone();
        bytes[2 * part + 7] ^= 1;
        for broken in [bytes, whole[..2 * part + 7].to_vec()] {
            store.set(&Name::blob(&digest), broken.into());
            for offset in [0, 5, 2 * part, 2 * part + 9] {
                let before = whole[offset..].len() - whole[offset.max(2 * part)..].len();
                assert_eq!(read(offset).await, (false, whole[offset..offset + before].to_vec()), "from {offset}");
            }
            assert!(read(3 * part).await.1.len() <= 100);
        }
        // A damaged blob without its checksums is detected only at the end.
        store.delete(&Name::sums(&digest)).await.expect("deleted");
        assert!(!read(0).await.0);
        Blobs::new(store.clone()).remove(&digest).await.expect("removed");
        assert!(store.list("").await.expect("a list").is_empty());
    }

    #[tokio::test]
    async fn a_blob_of_another_size_is_mended() {
        let store = Arc::new(MemoryStore::default());
        let blobs = Blobs::new(store.clone());
        store.set(&Name::blob(&Digest::hash(b"layer")), "lay".into());
        assert!(blobs.keep(&BytesSource::new("layer".into())).await.expect("kept"));
        assert!(blobs.read(&Digest::hash(b"layer"), 100).await.is_ok());
    }
}
