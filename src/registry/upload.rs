//! Uploads a blob: POST, PATCH with the bytes as they arrive, PUT with the digest (OCI distribution spec, "Pushing blobs").
//!
//! After a broken PATCH hakobi asks the registry how much it has, and continues there. If the registry has forgotten the upload,
//! hakobi uploads the blob again. The source is readable again from any offset, so hakobi keeps no bytes in memory for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};

use super::auth::Scope;
use super::client::{Begun, Client};
use super::error::{Error, Kind, Result};
use super::http::send;
use super::manifest::header;
use super::rate::too_slow;
use super::reply::{Refusal, Reply};
use super::retry::Attempts;
use super::start::network;
use super::upload_body::{Body, Progress, Stall};
use crate::domain::Repository;
use crate::transfer::{BlobSource, Identity};

/// A blob that the registry now has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The blob's identity.
    pub identity: Identity,
    /// Whether the registry mounted it from another repository, without an upload.
    pub mounted: bool,
    /// The number of sent bytes. Bytes sent twice count twice.
    pub sent: u64,
}

/// The maximum number of restarts if the registry forgets a blob's upload or finds the blob damaged.
const MOST_RESTARTS: u32 = 4;

/// The size of a PATCH before it breaks that counts as progress, so that the deadline starts again.
const WORTH_IT: u64 = 8 << 20;

/// The maximum number of broken requests of a blob, one after the other, of which the registry stored nothing.
const MOST_IN_VAIN: u32 = 8;

/// The result of a PATCH.
enum Patched {
    /// The registry has all bytes; the upload continues at this URL.
    Whole(Url),
    /// The PATCH broke off. The pause before hakobi asks how much arrived.
    Cut(Error, Option<Duration>),
    /// The registry has forgotten the upload.
    Forgotten(Error),
}

/// The state of one blob's upload over all its attempts.
struct Upload<'a> {
    client: &'a Client,
    source: &'a dyn BlobSource,
    what: String,
    progress: Progress,
    attempts: Attempts,
    sent: u64,
    /// The largest offset that the registry has confirmed.
    confirmed: u64,
    in_vain: u32,
    restarts: u32,
}

impl Client {
    /// Uploads a blob while the source still receives it. Mounts the blob instead if `from` is a repository of the same registry
    /// that has it. Calls `progress` with the number of bytes sent so far.
    ///
    /// # Errors
    /// If the registry refuses, is unreachable over the whole deadline, or the source fails ([`Kind::Source`]).
    pub async fn upload(&self, source: &dyn BlobSource, from: Option<&Repository>, progress: Progress) -> Result<Uploaded> {
        let what = match source.known() {
            Some(identity) => format!("upload the blob {}", identity.digest),
            None => "upload a blob".to_owned(),
        };
        let known = source.known();
        let mountable = from.filter(|from| from.host == self.repository.host && from.path != self.repository.path);
        let mut mount = known.as_ref().map(|identity| &identity.digest).zip(mountable);
        let attempts = Attempts::new(&self.host.shared.patience, &self.host.uploads);
        let mut upload =
            Upload { client: self, source, what, progress, attempts, sent: 0, confirmed: 0, in_vain: 0, restarts: 0 };
        loop {
            // hakobi tries to mount only once: a second attempt would fail too.
            let location = match self.begin(mount.take()).await.map_err(|error| error.doing(upload.what.clone()))? {
                Begun::Session(location) => location,
                Begun::Mounted => match known {
                    Some(identity) => return Ok(Uploaded { identity, mounted: true, sent: 0 }),
                    None => continue,
                },
            };
            if let Some(identity) = upload.session(location).await? {
                return Ok(Uploaded { identity, mounted: false, sent: upload.sent });
            }
        }
    }
}

impl Upload<'_> {
    /// Runs one upload session to its end. Returns `None` if hakobi must upload the blob from the beginning.
    async fn session(&mut self, mut location: Url) -> Result<Option<Identity>> {
        let mut offset = 0;
        loop {
            match self.patch(&location, offset).await? {
                Patched::Whole(next) => {
                    return self.finish(next).await;
                }
                Patched::Forgotten(error) => return self.restart(error).await,
                Patched::Cut(error, asked) => {
                    if !self.attempts.again(asked).await {
                        return Err(self.attempts.ended(error));
                    }
                    match self.status(&location).await? {
                        Some((there, next)) => {
                            offset = there;
                            location = next.unwrap_or(location);
                        }
                        None => return self.restart(error).await,
                    }
                    if offset > self.confirmed {
                        self.confirmed = offset;
                        self.in_vain = 0;
                        self.attempts.progressed();
                    }
                }
            }
        }
    }

    async fn restart(&mut self, error: Error) -> Result<Option<Identity>> {
        self.restarts += 1;
        if self.restarts > MOST_RESTARTS && self.in_vain == 0 || self.in_vain > MOST_IN_VAIN || !self.attempts.again(None).await {
            return Err(self.attempts.ended(error));
        }
        Ok(None)
    }

    fn unread(&self, cause: &str) -> Error {
        Error::at(Kind::Source, self.what.clone(), &self.client.repository).because(cause)
    }

    /// Returns a progress callback that also tells the other uploads that the registry accepts bytes.
    fn beating(&self, offset: u64) -> Progress {
        let (progress, uploads) = (self.progress.clone(), self.client.host.uploads.clone());
        let parts = AtomicU64::new(0);
        Arc::new(move |sent: u64| {
            let whole = sent.saturating_sub(offset) / WORTH_IT;
            if parts.swap(whole, Ordering::Relaxed) < whole {
                uploads.beat();
            }
            progress(sent);
        })
    }

    /// Sends the bytes from this offset to the end.
    async fn patch(&mut self, location: &Url, offset: u64) -> Result<Patched> {
        let host = &*self.client.host;
        let repository = &self.client.repository;
        let source = self.source.open(offset).await.map_err(|error| self.unread(&error.to_string()))?;
        let begun = Body::begin(source, offset, self.beating(offset)).await.map_err(|error| self.unread(&error.to_string()))?;
        let Some((body, watch)) = begun else { return Ok(Patched::Whole(location.clone())) };
        let mut request = host.client().await?.patch(location.clone()).header(CONTENT_TYPE, "application/octet-stream");
        if let Some(identity) = self.source.known() {
            request = request.header(CONTENT_LENGTH, identity.size.saturating_sub(offset));
        }
        if offset > 0
            && let Some(identity) = self.source.known()
        {
            request = request.header("content-range", format!("{offset}-{}", identity.size.saturating_sub(1)));
        }
        let request = request.body(reqwest::Body::wrap_stream(body));
        let (request, used) = if host.is_own(location).await? {
            let (request, used) = host.authorize(&Scope::push(&repository.path), request).await?;
            (request, Some(used))
        } else {
            (request, None)
        };
        let patience = &host.shared.patience;
        let outcome = tokio::select! {
            sent = send(request, self.attempts.made()) => sent.map_err(|error| network(&error, &self.what, &host.name).within(repository)),
            stall = watch.stalled(patience, &host.rate) => {
                let stalled = |cause: &str| Error::at(Kind::Network, self.what.clone(), repository).because(cause);
                match stall {
                    Stall::Silent => Err(stalled("the upload stalled")),
                    Stall::Slow => return Err(stalled(&too_slow(patience))),
                }
            }
        };
        host.rate.moved(watch.uncounted());
        self.sent += watch.sent();
        if let Some(cause) = watch.source_failed() {
            return Err(self.unread(&cause));
        }
        if watch.sent() >= WORTH_IT {
            self.attempts.progressed();
        }
        let refusal = match outcome {
            Ok(response) => match Reply::from_response(response).await {
                Reply::Ok(response) => {
                    host.uploads.beat();
                    let next = self.client.location(&response).await?;
                    return Ok(Patched::Whole(next.unwrap_or_else(|| location.clone())));
                }
                Reply::Refused(refusal) => refusal,
            },
            Err(error) => {
                if watch.sent() >= WORTH_IT {
                    self.in_vain += 1;
                }
                return Ok(Patched::Cut(error, None));
            }
        };
        let error = refusal.error(&self.what, repository).needs("ecr:UploadLayerPart");
        if refusal.wants_login() {
            if let Some(used) = used {
                host.refused(&used, &refusal).await;
            }
            // If a new login does not help, the next request fails with the same message.
            return Ok(Patched::Cut(error, None));
        }
        if refusal.is_transient() {
            return Ok(Patched::Cut(error, refusal.retry_after));
        }
        if is_forgotten(&refusal) { Ok(Patched::Forgotten(error)) } else { Err(error) }
    }

    /// Returns how much of the blob the registry has, and the URL for the rest. Returns `None` if the registry has forgotten the
    /// upload.
    async fn status(&self, location: &Url) -> Result<Option<(u64, Option<Url>)>> {
        let host = &*self.client.host;
        let repository = &self.client.repository;
        let scope = Scope::push(&repository.path);
        let make = |client: &reqwest::Client, url: Url| client.get(url);
        let response = match host.send(&self.what, repository, &scope, location, host.shared.patience.stall, make).await? {
            Reply::Ok(response) => response,
            Reply::Refused(refusal) if refusal.wants_login() || refusal.status == 403 => {
                return Err(refusal.error(&self.what, repository).needs("ecr:UploadLayerPart"));
            }
            // This includes a registry that cannot say: uploading the blob again is always correct.
            Reply::Refused(_) => return Ok(None),
        };
        let Some(there) = header(response.headers(), RANGE.as_str()).and_then(|range| arrived(&range)) else { return Ok(None) };
        Ok(Some((there, self.client.location(&response).await?)))
    }

    /// Closes the upload with the blob's digest.
    async fn finish(&mut self, location: Url) -> Result<Option<Identity>> {
        let identity = self.source.identity().await.map_err(|error| self.unread(&error.to_string()))?;
        self.what = format!("upload the blob {}", identity.digest);
        let host = &*self.client.host;
        let repository = &self.client.repository;
        let mut url = location;
        url.query_pairs_mut().append_pair("digest", &identity.digest.to_string());
        let make = |client: &reqwest::Client, url: Url| client.put(url).header(CONTENT_LENGTH, "0");
        let scope = Scope::push(&repository.path);
        let refusal = match host.send(&self.what, repository, &scope, &url, host.shared.patience.answer, make).await? {
            Reply::Ok(_) => return Ok(Some(identity)),
            Reply::Refused(refusal) => refusal,
        };
        let error = refusal.error(&self.what, repository).needs("ecr:CompleteLayerUpload");
        // The first answer was lost: the second PUT finds no upload, but the registry has the blob.
        if is_forgotten(&refusal) && self.client.has(&identity.digest).await? {
            return Ok(Some(identity));
        }
        if is_forgotten(&refusal) || matches!(refusal.code.as_str(), "DIGEST_INVALID" | "SIZE_INVALID") {
            return self.restart(error).await;
        }
        Err(error)
    }
}

fn is_forgotten(refusal: &Refusal) -> bool {
    let code = matches!(refusal.code.as_str(), "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" | "RANGE_INVALID");
    code || (matches!(refusal.status, 404 | 416) && refusal.code != "NAME_UNKNOWN")
}

/// Returns the number of bytes that arrived: `0-99` → 100. distribution answers `0-0` for no byte and for one byte. hakobi then
/// sends all bytes from 0 again, which is correct for no byte. For one byte, hakobi finds the blob by its digest.
fn arrived(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (_, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_how_much_arrived() {
        for (range, there) in [("0-0", Some(0)), ("0-99", Some(100)), ("bytes=0-99", Some(100)), ("", None), ("0-x", None)] {
            assert_eq!(arrived(range), there, "{range}");
        }
    }
}
