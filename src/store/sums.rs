//! Checksums of a large blob's parts. A daemon keeps what it has got of a layer and goes on from there wherever it asks for it
//! next (containerd's ingests, which live for a day), so a damaged byte must be found before it is passed on, not at the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{Name, Result, Store, read_small};
use crate::domain::{Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream};

/// Bytes of a part: what a reader holds back.
pub(super) const PART: u64 = 1 << 20;

/// The version of what is written; one of another version is as none.
const VERSION: u32 = 1;

/// Largest object with checksums, in bytes: of a layer of more than 400 GB.
const LIMIT: u64 = 4 << 20;

/// The checksums of a blob's parts. They find damage, and prove nothing: that is the digest's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    version: u32,
    /// Of the blob, in bytes.
    size: u64,
    /// Of a part, in bytes.
    part: u64,
    crc32: Vec<u32>,
}

impl Sums {
    /// Reads a blob for its checksums; a blob of one part needs none.
    pub(super) async fn of(source: &dyn BlobSource, size: u64) -> io::Result<Option<Self>> {
        if size <= PART {
            return Ok(None);
        }
        let mut stream = source.open(0).await?;
        let mut buffer = vec![0; usize::try_from(PART).unwrap_or(usize::MAX)];
        let mut crc32 = Vec::new();
        for part in 0..size.div_ceil(PART) {
            let part = &mut buffer[..length(size, part)];
            stream.read_exact(part).await?;
            crc32.push(crc32fast::hash(part));
        }
        Ok(Some(Self { version: VERSION, size, part: PART, crc32 }))
    }

    /// Those of a blob of this size, if there are any.
    pub(super) async fn read(store: &dyn Store, digest: &Digest, size: u64) -> Result<Option<Self>> {
        let bytes = read_small(store, &Name::sums(digest), LIMIT).await?;
        let sums = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(sums.filter(|sums| {
            sums.version == VERSION
                && (sums.size, sums.part) == (size, PART)
                && u64::try_from(sums.crc32.len()) == Ok(size.div_ceil(PART))
        }))
    }
}

/// How long a part of a blob is.
fn length(size: u64, part: u64) -> usize {
    usize::try_from(PART.min(size.saturating_sub(part * PART))).unwrap_or(usize::MAX)
}

/// Passes on only whole parts that are right.
pub(super) struct Parted {
    inner: ByteStream,
    size: u64,
    /// `None` for a blob of one part.
    sums: Option<Sums>,
    expected: Digest,
    /// Where the blob is read from its beginning.
    hasher: Option<Hasher>,
    /// The part that is read next.
    next: u64,
    part: Vec<u8>,
    /// How much of the part is read, and how much of it was passed on or is not asked for.
    read: usize,
    passed: usize,
    is_right: bool,
    told: Box<dyn FnMut(Trouble) -> io::Error + Send>,
}

/// What a reader can meet.
pub(super) enum Trouble {
    /// The bytes are others, or fewer.
    Damaged,
    /// They do not arrive.
    Broken(io::Error),
}

impl Parted {
    /// Where to begin to read for an offset: where a part begins.
    pub(super) fn start(offset: u64) -> u64 {
        offset - offset % PART
    }

    /// The bytes of a blob that is not empty, from an offset; `inner` begins at the [`Parted::start`] of it.
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
            told: Box::new(told),
        }
    }

    /// Whether the part that was read is what was kept: by its checksum, and the last by the digest of the whole.
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
                    0 => return Poll::Ready(Err((this.told)(Trouble::Damaged))),
                    length => this.read += length,
                }
            }
            if !this.check() {
                return Poll::Ready(Err((this.told)(Trouble::Damaged)));
            }
            this.is_right = true;
        }
    }
}
