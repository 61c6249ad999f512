//! The body of an upload. It reads from its source, and knows whether hakobi waits for the source or for the registry.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio_util::io::ReaderStream;

use super::rate::Rate;
use super::retry::Patience;
use crate::transfer::ByteStream;

/// A callback that gets the number of a blob's bytes sent so far.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

const PART: usize = 128 << 10;

/// The state of a body during the upload.
#[derive(Debug)]
pub(super) struct Watch(Mutex<State>);

#[derive(Debug)]
struct State {
    waits_for_source: bool,
    ended: bool,
    sent: u64,
    /// The part of the sent bytes that the registry's rate contains.
    counted: u64,
    moved: Instant,
    source_failed: Option<String>,
}

impl State {
    fn uncounted(&mut self) -> u64 {
        let new = self.sent - self.counted;
        self.counted = self.sent;
        new
    }
}

impl Watch {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns the number of sent bytes.
    pub(super) fn sent(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sent
    }

    /// Returns the number of sent bytes that the registry's rate does not contain yet.
    pub(super) fn uncounted(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).uncounted()
    }

    /// Returns the error of the source. Returns `None` if the source did not fail.
    pub(super) fn source_failed(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).source_failed.clone()
    }

    /// Returns after the registry has made no progress, or too little, for too long. Time that the source takes does not count.
    pub(super) async fn stalled(&self, patience: &Patience, rate: &Rate) -> Stall {
        loop {
            let since = Instant::now();
            tokio::time::sleep((patience.stall / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.waits_for_source {
                continue;
            }
            if state.moved.elapsed() > if state.ended { patience.answer } else { patience.stall } {
                return Stall::Silent;
            }
            // While it assembles the blob before its answer, no byte moves.
            if !state.ended && rate.waited(since, state.uncounted(), patience) {
                return Stall::Slow;
            }
        }
    }
}

/// How a registry delays an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// It moves nothing.
    Silent,
    /// It moves less than the minimum rate, in all its operations. Another attempt will not help.
    Slow,
}

/// The bytes of a source from the offset at which it was opened.
pub(super) struct Body {
    parts: ReaderStream<ByteStream>,
    first: Option<Bytes>,
    offset: u64,
    watch: Arc<Watch>,
    progress: Progress,
}

impl Body {
    /// Waits for the first bytes, so that no request stays open without bytes. Returns `None` if there are none.
    pub(super) async fn begin(source: ByteStream, offset: u64, progress: Progress) -> io::Result<Option<(Self, Arc<Watch>)>> {
        let mut parts = ReaderStream::with_capacity(source, PART);
        let Some(first) = parts.next().await.transpose()? else { return Ok(None) };
        let watch = Arc::new(Watch(Mutex::new(State {
            waits_for_source: false,
            ended: false,
            sent: 0,
            counted: 0,
            moved: Instant::now(),
            source_failed: None,
        })));
        Ok(Some((Self { parts, first: Some(first), offset, watch: Arc::clone(&watch), progress }, watch)))
    }
}

/// Over HTTP/1.1, hyper drops a body of known length after its last byte and never asks for its end.
impl Drop for Body {
    fn drop(&mut self) {
        self.watch.change(|state| {
            state.ended = true;
            state.waits_for_source = false;
        });
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => this.parts.poll_next_unpin(cx),
        };
        let Poll::Ready(part) = next else {
            this.watch.change(|state| state.waits_for_source = true);
            return Poll::Pending;
        };
        let length = part.as_ref().and_then(|part| part.as_ref().ok()).map_or(0, Bytes::len) as u64;
        let failed = part.as_ref().and_then(|part| part.as_ref().err()).map(ToString::to_string);
        let ended = part.is_none();
        let mut sent = 0;
        this.watch.change(|state| {
            state.waits_for_source = false;
            state.moved = Instant::now();
            state.sent += length;
            state.ended |= ended;
            state.source_failed = failed;
            sent = state.sent;
        });
        if length > 0 {
            (this.progress)(this.offset + sent);
        }
        Poll::Ready(part)
    }
}
