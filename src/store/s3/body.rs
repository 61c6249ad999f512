//! Bodies of requests that report their progress: a part of 8 MiB takes a minute on a slow line, but moves all the time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::store::Pace;

/// How many bytes are handed out at once.
const PIECE: usize = 64 << 10;

/// Returns a body of these bytes that can be sent again.
pub(super) fn body(bytes: Bytes, pace: &Pace) -> ByteStream {
    let pace = pace.clone();
    let told = SdkBody::from(bytes.clone())
        .map_preserve_contents(move |_| SdkBody::from_body_1_x(Pieces { left: bytes.clone(), pace: pace.clone() }));
    ByteStream::new(told)
}

/// Bytes in pieces; taking a piece reports it.
struct Pieces {
    left: Bytes,
    pace: Pace,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE);
        let piece = self.left.split_to(length);
        self.pace.moved(length as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
