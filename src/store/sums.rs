//! Checksums of a large blob's parts. A daemon stores the part of a layer that it got, and later continues there (containerd's
//! ingests, which last a day). So a damaged byte must be detected before it is passed on, not at the end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Name, ObjectStore, Result, read_undamaged};
use crate::domain::{Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream, Identity};

/// The size of a part in bytes, which a reader withholds until it is checked.
pub(super) const PART: u64 = 1 << 20;

/// The version of the format; an object of another version counts as missing.
const VERSION: u32 = 1;

/// Largest object with checksums, in bytes: for a layer of more than 400 GB.
const LIMIT: u64 = 4 << 20;

/// The checksums of a blob's parts. They only detect damage; the digest proves the content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    version: u32,
    /// The size of the blob in bytes.
    size: u64,
    /// The size of a part in bytes.
    part: u64,
    crc32: Vec<u32>,
}

impl Sums {
    /// Reads the checksums of a blob with this size. Returns `None` if there are none.
    pub(super) async fn read(store: &dyn ObjectStore, digest: &Digest, size: u64) -> Result<Option<Self>> {
        let bytes = read_undamaged(store, &Name::sums(digest), LIMIT).await?;
        let sums = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(sums.filter(|sums| {
            sums.version == VERSION
                && (sums.size, sums.part) == (size, PART)
                && u64::try_from(sums.crc32.len()) == Ok(size.div_ceil(PART))
        }))
    }
}

/// A blob whose checksums are computed while it is read. It is not read only for these, because its source may be remote.
pub(super) struct Summed<'a> {
    source: &'a dyn BlobSource,
    size: u64,
    /// The checksums of the parts that were read completely.
    crc32: Arc<Mutex<Vec<Option<u32>>>>,
}

impl<'a> Summed<'a> {
    pub(super) fn new(source: &'a dyn BlobSource, size: u64) -> Self {
        let parts = usize::try_from(size.div_ceil(PART)).unwrap_or_default();
        Self { source, size, crc32: Arc::new(Mutex::new(vec![None; parts])) }
    }

    /// Returns the checksums if all parts were read. Returns `None` for a blob of one part, which needs none.
    pub(super) fn sums(&self) -> Option<Sums> {
        let crc32: Option<Vec<u32>> = self.crc32.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let crc32 = crc32.filter(|_| self.size > PART)?;
        Some(Sums { version: VERSION, size: self.size, part: PART, crc32 })
    }
}

#[async_trait]
impl BlobSource for Summed<'_> {
    fn known(&self) -> Option<Identity> {
        self.source.known()
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let inner = self.source.open(offset).await?;
        let crc32 = Arc::clone(&self.crc32);
        Ok(Box::pin(Summing { inner, size: self.size, at: offset, hasher: crc32fast::Hasher::new(), whole: false, crc32 }))
    }

    async fn identity(&self) -> io::Result<Identity> {
        self.source.identity().await
    }
}

/// Computes the checksums of the parts that pass, from the first part that passes completely.
struct Summing {
    inner: ByteStream,
    size: u64,
    at: u64,
    hasher: crc32fast::Hasher,
    /// Whether the part passed from its beginning.
    whole: bool,
    crc32: Arc<Mutex<Vec<Option<u32>>>>,
}

impl AsyncRead for Summing {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(context, buffer))?;
        let mut new = &buffer.filled()[before..];
        let this = &mut *self;
        while !new.is_empty() {
            if this.at.is_multiple_of(PART) {
                this.hasher = crc32fast::Hasher::new();
                this.whole = true;
            }
            let left = PART - this.at % PART;
            let (part, rest) = new.split_at(new.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            this.hasher.update(part);
            this.at += part.len() as u64;
            new = rest;
            if this.whole && (this.at.is_multiple_of(PART) || this.at == this.size) {
                let place = usize::try_from((this.at - 1) / PART).unwrap_or(usize::MAX);
                let sum = this.hasher.clone().finalize();
                if let Some(of_part) = this.crc32.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                    *of_part = Some(sum);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the length of a blob's part.
fn length(size: u64, part: u64) -> usize {
    usize::try_from(PART.min(size.saturating_sub(part * PART))).unwrap_or(usize::MAX)
}

/// Passes on only complete parts with the right checksum.
pub(super) struct Parted {
    inner: ByteStream,
    size: u64,
    /// `None` for a blob of one part.
    sums: Option<Sums>,
    expected: Digest,
    /// Set if the blob is read from its beginning.
    hasher: Option<Hasher>,
    /// The next part to read.
    next: u64,
    part: Vec<u8>,
    /// How many bytes of the part are read, and how many of these were passed on or not requested.
    read: usize,
    passed: usize,
    is_right: bool,
    /// Whether the stream has failed; it stays failed.
    failed: bool,
    told: Box<dyn FnMut(Trouble) -> io::Error + Send>,
}

/// The faults that a reader can find.
pub(super) enum Trouble {
    /// Bytes differ or are missing.
    Damaged,
    /// The bytes do not arrive.
    Broken(io::Error),
}

impl Parted {
    /// Returns where to start reading for an offset: at the start of a part.
    pub(super) fn start(offset: u64) -> u64 {
        offset - offset % PART
    }

    /// Returns the stream of a non-empty blob from an offset; `inner` begins at its [`Parted::start`].
    pub(super) fn new(
        inner: ByteStream,
        expected: Digest,
        size: u64,
        sums: Option<Sums>,
        offset: u64,
        told: impl FnMut(Trouble) -> io::Error + Send + 'static,
    ) -> Self {
        let start = Self::start(offset);
        Self {
            inner,
            size,
            sums,
            expected,
            hasher: (start == 0).then(Hasher::default),
            next: start / PART,
            part: Vec::new(),
            read: 0,
            passed: usize::try_from(offset - start).unwrap_or(usize::MAX),
            is_right: false,
            failed: false,
            told: Box::new(told),
        }
    }

    /// Returns whether the part is right: by its checksum, and the last part also by the digest of the whole blob.
    fn check(&mut self) -> bool {
        let by_sum = |sums: &Sums| {
            let sum = usize::try_from(self.next).ok().and_then(|at| sums.crc32.get(at));
            sum == Some(&crc32fast::hash(&self.part))
        };
        if !self.sums.as_ref().is_none_or(by_sum) {
            return false;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.part);
        }
        let is_last = (self.next + 1) * PART >= self.size;
        !is_last || self.hasher.take().is_none_or(|hasher| hasher.digest() == self.expected)
    }
}

impl AsyncRead for Parted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(Err((this.told)(Trouble::Damaged)));
        }
        loop {
            if this.is_right {
                let left = this.part.get(this.passed..).unwrap_or_default();
                if !left.is_empty() {
                    let length = left.len().min(buffer.remaining());
                    buffer.put_slice(&left[..length]);
                    this.passed += length;
                    return Poll::Ready(Ok(()));
                }
                (this.is_right, this.read, this.passed) = (false, 0, 0);
                this.next += 1;
            }
            if this.next * PART >= this.size {
                return Poll::Ready(Ok(()));
            }
            this.part.resize(length(this.size, this.next), 0);
            while this.read < this.part.len() {
                let mut rest = ReadBuf::new(&mut this.part[this.read..]);
                if let Err(error) = ready!(this.inner.as_mut().poll_read(context, &mut rest)) {
                    return Poll::Ready(Err((this.told)(Trouble::Broken(error))));
                }
                match rest.filled().len() {
                    0 => {
                        this.failed = true;
                        return Poll::Ready(Err((this.told)(Trouble::Damaged)));
                    }
                    length => this.read += length,
                }
            }
            if !this.check() {
                this.failed = true;
                return Poll::Ready(Err((this.told)(Trouble::Damaged)));
            }
            this.is_right = true;
        }
    }
}
