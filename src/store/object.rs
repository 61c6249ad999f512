//! An object to write to a store. Its bytes are hashed during the transfer. A backend gets nothing else to write, so that no caller
//! can forget to compare them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::pace::Excused;
use super::{Error, Fault, Name, Pace, Result};
use crate::domain::{Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream};

/// An object to write: its size, and a stream that ends with an error if its bytes do not match its digest. Only
/// [`super::ObjectStore::write`] makes one.
pub struct Object<'a> {
    source: &'a dyn BlobSource,
    expected: Digest,
    size: u64,
    /// Why the source did not supply the right bytes.
    failed: Arc<Mutex<Option<String>>>,
    /// The pace of the store that waits for the bytes.
    pace: Option<Pace>,
}

impl<'a> Object<'a> {
    /// Makes the object to write under a name. Waits until the source is complete.
    ///
    /// # Errors
    /// If the source breaks off, or has another digest than the name says.
    pub(super) async fn new(name: &Name, source: &'a dyn BlobSource) -> Result<Self> {
        let identity = source.identity().await.map_err(|error| unreadable(name, &error.to_string()))?;
        let expected = name.digest().unwrap_or_else(|| identity.digest.clone());
        if expected != identity.digest {
            return Err(unreadable(name, &format!("its bytes have the digest {}", identity.digest)));
        }
        Ok(Self { source, expected, size: identity.size, failed: Arc::default(), pace: None })
    }

    /// Returns the object for a store with this pace, which is not responsible for a slow source.
    pub(super) fn paced(&self, pace: &Pace) -> Self {
        let (expected, failed) = (self.expected.clone(), Arc::clone(&self.failed));
        Self { source: self.source, expected, size: self.size, failed, pace: Some(pace.clone()) }
    }

    /// Returns the digest of its bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.expected
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Opens the bytes. The last ones come only if all are right; until then nothing may be visible under the object's name.
    ///
    /// # Errors
    /// If the source cannot be read. The stream ends with an error if the bytes differ or some are missing.
    pub async fn open(&self) -> io::Result<ByteStream> {
        let opened = self.source.open(0).await;
        let inner = opened.inspect_err(|error| note(&self.failed, &error.to_string()))?;
        let (expected, failed) = (self.expected.clone(), Arc::clone(&self.failed));
        let pace = self.pace.clone();
        let mut checking =
            Checking { inner, expected, hasher: Some(Hasher::default()), left: self.size, failed, pace, excused: None };
        if self.size == 0 {
            checking.end()?;
        }
        Ok(Box::pin(checking))
    }

    /// Returns the error of a failed write: the source's error if the source is the cause.
    pub(super) fn blame(&self, name: &Name, error: Error) -> Error {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => unreadable(name, why),
            None => error,
        }
    }
}

fn unreadable(name: &Name, why: &str) -> Error {
    Error::new(Fault::Source, format!("failed to read the source of {name}: {why}"))
}

fn note(failed: &Mutex<Option<String>>, why: &str) {
    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
}

/// Passes bytes on, and the last of them only if all are right.
struct Checking {
    inner: ByteStream,
    expected: Digest,
    /// `None` after the check.
    hasher: Option<Hasher>,
    /// The number of bytes that remain.
    left: u64,
    failed: Arc<Mutex<Option<String>>>,
    pace: Option<Pace>,
    /// Set while the stream waits for the source.
    excused: Option<Excused>,
}

impl Checking {
    fn fail(&self, why: &str) -> io::Error {
        note(&self.failed, why);
        io::Error::other(why.to_owned())
    }

    /// Compares the digest.
    fn end(&mut self) -> io::Result<()> {
        match self.hasher.take().map(Hasher::digest) {
            Some(found) if found != self.expected => {
                Err(self.fail(&format!("its bytes have the digest {found}, not {}", self.expected)))
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Checking {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left == 0 || buffer.remaining() == 0 {
            // A failed stream stays failed.
            let failed = this.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Poll::Ready(failed.map_or(Ok(()), |why| Err(io::Error::other(why))));
        }
        let room = buffer.remaining().min(usize::try_from(this.left).unwrap_or(usize::MAX));
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let polled = this.inner.as_mut().poll_read(context, &mut part);
        this.excused = match (&polled, &this.pace) {
            (Poll::Pending, Some(pace)) => this.excused.take().or_else(|| Some(pace.excuses())),
            _ => None,
        };
        if let Err(error) = ready!(polled) {
            return Poll::Ready(Err(this.fail(&error.to_string())));
        }
        let new = part.filled();
        let read = new.len();
        if read == 0 {
            return Poll::Ready(Err(this.fail("it is shorter than expected")));
        }
        if let Some(hasher) = &mut this.hasher {
            hasher.update(new);
        }
        this.left -= read as u64;
        if this.left == 0 {
            this.end()?;
        }
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}
