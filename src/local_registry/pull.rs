//! The pull half (distribution-spec, "Pull"): serves manifests and blobs of cache repositories, including ranges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::answer::{Answer, Refusal, answer, manifest_answer};
use super::cache_repository::CacheRepository;
use crate::domain::Digest;
use crate::registry::{self, Kind, Source as _};
use crate::transfer::ByteStream;

/// How many bytes are sent at once.
const PART: usize = 128 << 10;

/// The served bytes, by blob.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<Mutex<BTreeMap<Digest, Transferred>>>);

/// The served bytes of a blob.
#[derive(Debug, Clone, Copy)]
pub struct Transferred {
    /// The number of bytes.
    pub bytes: u64,
    /// When the first was requested.
    pub began: Instant,
    /// When the last was sent.
    pub ended: Instant,
}

impl Served {
    /// Notes that the daemon requested a blob.
    pub fn begin(&self, digest: &Digest) {
        self.add(digest, 0);
    }

    /// Adds bytes of a blob that were sent.
    pub fn add(&self, digest: &Digest, bytes: u64) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let given = all.entry(digest.clone()).or_insert(Transferred { bytes: 0, began: now, ended: now });
        given.bytes += bytes;
        given.ended = now;
    }

    pub(super) fn blobs(&self) -> BTreeMap<Digest, Transferred> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, given)| given.bytes > 0).map(|(digest, given)| (digest.clone(), *given)).collect()
    }
}

/// All cache repositories of an endpoint, by their names.
pub(super) struct Repositories {
    repositories: BTreeMap<String, CacheRepository>,
    served: Served,
}

impl Repositories {
    /// Returns those that belong to this endpoint's secret path.
    pub(super) fn new(secret_path: &str, repositories: Vec<CacheRepository>, served: Served) -> Self {
        let name = |repository: &CacheRepository| {
            Some(repository.repository().path.strip_prefix(secret_path)?.strip_prefix('/')?.to_owned())
        };
        Self {
            repositories: repositories.into_iter().filter_map(|repository| Some((name(&repository)?, repository))).collect(),
            served,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.repositories.contains_key(name)
    }

    fn repository(&self, name: &str) -> Result<&CacheRepository, Refusal> {
        let unknown = || Refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "unknown repository".to_owned());
        self.repositories.get(name).ok_or_else(unknown)
    }

    pub(super) async fn manifest(&self, name: &str, reference: &str, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        let unknown = || Refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "unknown manifest".to_owned());
        let repository = self.repository(name)?;
        if let Ok(digest) = reference.parse()
            && !repository.offers(&digest).await.map_err(|error| fault(&error))?
        {
            return Err(unknown());
        }
        let manifest = repository.manifest(reference).await.map_err(|error| fault(&error))?.ok_or_else(unknown)?;
        Ok(manifest_answer(manifest, request))
    }

    pub(super) async fn blob(&self, name: &str, digest: &str, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        let unknown = || Refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "unknown blob".to_owned());
        let digest: Digest = digest.parse().map_err(|_| unknown())?;
        let repository = self.repository(name)?;
        if !repository.offers(&digest).await.map_err(|error| fault(&error))? {
            return Err(unknown());
        }
        let damaged = || Refusal(StatusCode::FORBIDDEN, "DENIED", format!("the blob {digest} is damaged"));
        let size = match repository.size(&digest).await.map_err(|error| fault(&error))? {
            Some(size) => size,
            None => return Err(if repository.is_damaged(&digest) { damaged() } else { unknown() }),
        };
        let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let (status, start, end) = match range.map_or(Some(None), |range| parse_range(range, size)) {
            Some(None) => (StatusCode::OK, 0, size),
            Some(Some((start, end))) => (StatusCode::PARTIAL_CONTENT, start, end),
            None => {
                let headers = [("Content-Range", format!("bytes */{size}"))];
                return Ok(answer(StatusCode::RANGE_NOT_SATISFIABLE, &headers));
            }
        };
        let mut headers = vec![
            ("Content-Type", "application/octet-stream".to_owned()),
            ("Content-Length", (end - start).to_string()),
            ("Accept-Ranges", "bytes".to_owned()),
            ("Docker-Content-Digest", digest.to_string()),
        ];
        if status == StatusCode::PARTIAL_CONTENT {
            headers.push(("Content-Range", format!("bytes {start}-{}/{size}", end - 1)));
        }
        let mut answer = answer(status, &headers);
        if request.method() == Method::GET {
            self.served.begin(&digest);
            let stream = repository.open_blob(&digest, Some(size), start).await.map_err(|error| fault(&error))?;
            let whole = end == size;
            let stream: ByteStream = if whole { stream } else { Box::pin(stream.take(end - start)) };
            let served = self.served.clone();
            let parts = ReaderStream::with_capacity(stream, PART).map(move |part: std::io::Result<Bytes>| {
                let part = part?;
                served.add(&digest, part.len() as u64);
                Ok(Frame::data(part))
            });
            *answer.body_mut() = StreamBody::new(parts).boxed_unsync();
        }
        Ok(answer)
    }
}

/// Returns the single range of `bytes=a-b`, end excluded. Returns `Some(None)` for a header that may be ignored (RFC 9110, 14.2),
/// and `None` for a range behind the end.
fn parse_range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return Some(None) };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(start), Ok(last)) if last >= start => (start, last.saturating_add(1).min(size)),
        (Ok(start), Err(_)) if last.trim().is_empty() => (start, size),
        (Err(_), Ok(suffix)) if first.trim().is_empty() => (size.saturating_sub(suffix), size),
        _ => return Some(None),
    };
    if start < end { Some(Some((start, end))) } else { None }
}

fn fault(error: &registry::Error) -> Refusal {
    let status = match error.kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        // An overlay2 daemon tries again for a minute, but not after "denied" (moby `retryOnError`).
        _ => StatusCode::FORBIDDEN,
    };
    Refusal(status, "DENIED", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-", Some(Some((0, 10)))),
            ("bytes=2-4", Some(Some((2, 5)))),
            ("bytes=2-400", Some(Some((2, 10)))),
            ("bytes=-3", Some(Some((7, 10)))),
            ("bytes=-30", Some(Some((0, 10)))),
            ("bytes=10-", None),
            ("bytes=4-2", Some(None)),
            ("bytes=0-1,4-5", Some(None)),
            ("lines=0-1", Some(None)),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }
}
