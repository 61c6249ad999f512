//! Reads an object in ranges, several at once: one connection to S3 gives some 90 MB/s, even if the network is faster.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::error::DisplayErrorContext;
use bytes::Bytes;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::io::StreamReader;

use super::{Inner, LEAST, STALL, error};
use crate::store::{Error, Fault, Result};
use crate::transfer::ByteStream;

/// The size of a range in bytes. Together with [`super::READ_AHEAD`], it limits the memory of all reads.
const PART: u64 = 4 << 20;

/// How often a range is requested that broke off midway; the SDK itself retries requests without an answer.
const ATTEMPTS: u32 = 4;

/// The bytes of a range, with the size and the version of the whole object.
struct Part {
    bytes: Bytes,
    whole: u64,
    etag: Option<String>,
}

/// Reads an object from one offset to another.
struct Reader {
    inner: Arc<Inner>,
    key: String,
    etag: Option<String>,
    /// The start of the next range that is not requested yet.
    next: u64,
    end: u64,
    /// Requested ranges, in order.
    ahead: VecDeque<Ahead>,
    first: Option<Bytes>,
}

/// A range in transfer. Dropping it cancels the transfer.
struct Ahead {
    task: JoinHandle<Result<Option<Part>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens an object. Returns `None` if it is missing.
pub(super) async fn open(inner: Arc<Inner>, key: String, range: Range<u64>) -> Result<Option<ByteStream>> {
    if range.is_empty() {
        // S3 does not support empty ranges.
        let head = part(&inner, &key, range.start..range.start + 1, None).await?;
        return Ok(head.map(|_| Box::pin(std::io::Cursor::new(Bytes::new())) as ByteStream));
    }
    let first = range.start..range.end.min(range.start.saturating_add(PART));
    let Some(first) = part(&inner, &key, first, None).await? else { return Ok(None) };
    let next = range.start.saturating_add(first.bytes.len() as u64);
    let end = range.end.min(first.whole);
    let mut reader = Reader { inner, key, etag: first.etag, next, end, ahead: VecDeque::new(), first: Some(first.bytes) };
    reader.look_ahead();
    let parts = stream::try_unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(bytes)) => Ok(Some((bytes, reader))),
            Ok(None) => Ok(None),
            Err(error) => Err(std::io::Error::other(error)),
        }
    });
    Ok(Some(Box::pin(StreamReader::new(Box::pin(parts)))))
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        self.look_ahead();
        let Some(mut ahead) = self.ahead.pop_front() else { return Ok(None) };
        let gone = || Error::new(Fault::Missing, format!("{} was deleted while hakobi read it", self.key));
        let part = (&mut ahead.task).await.map_err(|error| Error::new(Fault::Other, error.to_string()))??.ok_or_else(gone)?;
        Ok(Some(part.bytes))
    }

    /// Requests as many further ranges as memory allows, and at least one: otherwise streams that wait for each other would never
    /// continue.
    fn look_ahead(&mut self) {
        while self.next < self.end {
            let permit = Arc::clone(&self.inner.ahead).try_acquire_owned().ok();
            if permit.is_none() && !self.ahead.is_empty() {
                return;
            }
            let range = self.next..self.end.min(self.next + PART);
            self.next = range.end;
            let (inner, key, etag) = (Arc::clone(&self.inner), self.key.clone(), self.etag.clone());
            let task = tokio::spawn(async move { part(&inner, &key, range, etag.as_deref()).await });
            self.ahead.push_back(Ahead { task, _permit: permit });
        }
    }
}

/// Reads one range, or the part of it that exists. Returns `None` if the object is missing.
async fn part(inner: &Inner, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Option<Part>> {
    let mut pause = std::time::Duration::from_millis(100);
    let mut attempt = 1;
    loop {
        match once(inner, key, &range, etag).await {
            Err(Broken::Midway(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(pause.mul_f64(rand::random::<f64>())).await;
                pause *= 4;
                attempt += 1;
            }
            result => return result.map_err(|(Broken::Midway(error) | Broken::Refused(error))| error),
        }
    }
}

/// Why a range did not arrive.
enum Broken {
    /// It broke off. Another connection may supply it.
    Midway(Error),
    /// The server did not supply it, although the SDK tried several times.
    Refused(Error),
}

async fn once(inner: &Inner, key: &str, range: &Range<u64>, etag: Option<&str>) -> Result<Option<Part>, Broken> {
    let bucket = &inner.settings.bucket;
    let asked = format!("bytes={}-{}", range.start, range.end - 1);
    let request = inner.client.get_object().bucket(bucket).key(key).range(asked).set_if_match(etag.map(str::to_owned));
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        // A range behind the end is empty, which is no fault.
        Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 416) => {
            return Ok(Some(Part { bytes: Bytes::new(), whole: range.start, etag: None }));
        }
        Err(error) => {
            return match error::absent_or(&format!("read {key}"), "s3:GetObject", bucket, &error) {
                None => Ok(None),
                Some(error) => Err(Broken::Refused(error)),
            };
        }
    };
    let cut =
        |why: &str| Broken::Midway(Error::new(Fault::Unreachable, format!("failed to read {key} in the bucket {bucket}: {why}")));
    let whole = answer.content_range().and_then(|range| range.rsplit('/').next()?.parse().ok());
    let length = answer.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
    let whole = whole.unwrap_or(range.start + length);
    let expected = range.end.min(whole).saturating_sub(range.start);
    // A server without support for ranges would send the whole object for each of them.
    if length != expected {
        return Err(Broken::Refused(Error::new(
            Fault::Unreachable,
            format!("failed to read {key} in the bucket {bucket}: the server sent {length} bytes instead of {expected}"),
        )));
    }
    // Reads no more than the requested bytes, whatever the answer says of the object.
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(PART)).unwrap_or_default());
    let (mut due, mut since) = (tokio::time::Instant::now() + STALL, 0);
    loop {
        match tokio::time::timeout_at(due, answer.body.next()).await {
            Ok(Some(Ok(chunk))) => {
                inner.pace.moved(chunk.len() as u64);
                since += chunk.len() as u64;
                if since >= LEAST {
                    (due, since) = (tokio::time::Instant::now() + STALL, 0);
                }
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > expected {
                    return Err(cut("it is longer than expected"));
                }
            }
            Ok(Some(Err(error))) => return Err(cut(&DisplayErrorContext(&error).to_string())),
            Ok(None) if bytes.len() as u64 == expected => break,
            Ok(None) => return Err(cut("it is shorter than expected")),
            Err(_) => return Err(cut("the transfer stalled")),
        }
    }
    Ok(Some(Part { bytes: bytes.into(), whole, etag: answer.e_tag().map(str::to_owned) }))
}
