//! The bytes of a tape's entries. A reader has the stream only until the tape moves to the next entry.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, BufReader, ReadBuf};

use super::error::{Error, Result};
use super::format::BLOCK;
use crate::domain::{Digest, Hasher};
use crate::transfer::ByteStream;

/// The bytes of an entry. They end with an error if they do not match the digest in the entry's name. After the archive has moved
/// on, the body is empty.
pub(super) struct Body {
    source: Source,
    number: u64,
    /// The size in bytes.
    pub(super) size: u64,
    /// The digest in the entry's name.
    pub(super) digest: Option<Digest>,
}

/// The stream that a tape and its current body share.
#[derive(Clone)]
pub(super) struct Source(Arc<Mutex<State>>);

struct State {
    from: BufReader<ByteStream>,
    /// The number of the current entry.
    number: u64,
    path: String,
    /// The number of unread bytes of the current entry.
    left: u64,
    /// The number of bytes that pad the entry's last block.
    padding: usize,
    /// The digest to verify. `None` after the verification.
    expected: Option<(Digest, Hasher)>,
    /// The error that a reader found in a body.
    fault: Option<Error>,
}

impl Source {
    pub(super) fn new(from: ByteStream) -> Self {
        let from = BufReader::with_capacity(64 << 10, from);
        let path = String::new();
        let state = State { from, number: 0, path, left: 0, padding: 0, expected: None, fault: None };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the bytes of another entry, and verifies them if there is a digest.
    ///
    /// # Errors
    /// If no entry can have this size.
    pub(super) fn begin(&self, path: &str, size: u64, digest: Option<Digest>) -> Result<Body> {
        // Go's reader has the same limit.
        if i64::try_from(size).is_err() {
            return Err(Error::malformed(format!("the archive has an entry of {size} bytes: {path}")));
        }
        let mut state = self.lock();
        state.number += 1;
        path.clone_into(&mut state.path);
        state.left = size;
        state.padding = (BLOCK - usize::try_from(size % BLOCK as u64).unwrap_or(0)) % BLOCK;
        state.expected = digest.clone().map(|digest| (digest, Hasher::default()));
        state.fault = None;
        Ok(Body { source: self.clone(), number: state.number, size, digest })
    }

    /// Returns the unread bytes of the current entry.
    pub(super) fn rest(&self) -> Body {
        let state = self.lock();
        Body { source: self.clone(), number: state.number, size: state.left, digest: None }
    }

    /// Returns the number of bytes that pad the current entry's last block. The next call returns 0.
    pub(super) fn take_padding(&self) -> usize {
        std::mem::take(&mut self.lock().padding)
    }

    /// Returns the error of the last body. Returns `None` if there was none.
    pub(super) fn fault(&self) -> Option<Error> {
        self.lock().fault.take()
    }

    /// Returns the error for an archive that ends within the current entry.
    pub(super) fn cut_off(&self) -> Error {
        cut_off(&self.lock().path)
    }

    /// Reads bytes between entries. Returns 0 at the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        let read = poll_fn(|context| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.lock().from).poll_read(context, &mut buffer))?;
            Poll::Ready(io::Result::Ok(buffer.filled().len()))
        });
        read.await.map_err(Error::Read)
    }
}

impl State {
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.left == 0 {
            return Poll::Ready(self.verify());
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.remaining());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.from).poll_read(context, &mut part)).map_err(Error::Read)?;
        let filled = part.filled();
        if filled.is_empty() {
            return Poll::Ready(Err(cut_off(&self.path)));
        }
        if let Some((_, hasher)) = &mut self.expected {
            hasher.update(filled);
        }
        let read = filled.len();
        self.left -= read as u64;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }

    fn verify(&mut self) -> Result<()> {
        match self.expected.take() {
            Some((expected, hasher)) if hasher.clone().digest() != expected => {
                let found = hasher.digest();
                Err(Error::malformed(format!("the archive is damaged: the bytes of {} have the digest {found}", self.path)))
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Body {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut source = self.source.lock();
        if source.number != self.number {
            return Poll::Ready(Err(io::Error::other("the archive is already at another entry")));
        }
        let result = ready!(source.poll_body(context, buffer));
        Poll::Ready(result.map_err(|fault| {
            let error = io::Error::other(fault.to_string());
            source.fault = Some(fault);
            error
        }))
    }
}

fn cut_off(path: &str) -> Error {
    Error::malformed(format!("the archive ends in the middle of {path}"))
}
