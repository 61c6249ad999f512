//! The OCI distribution protocol: pushes go to the receiver, and pulls come from the cache repositories.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::answer::{Answer, Refusal, answer, full, manifest_answer};
use super::pull::Repositories;
use super::receiver::Receiver;
use super::uploads::{Upload, Uploads};
use crate::debug;
use crate::domain::{Digest, RawManifest};
use crate::transfer::{BlobSource as _, Spool, SpoolWriter};

/// Largest accepted manifest, in bytes: the limit of registries.
const MANIFEST_LIMIT: usize = 4 << 20;

pub(super) struct Handler {
    secret_path: String,
    repositories: Repositories,
    receiver: Option<Arc<dyn Receiver>>,
    directory: PathBuf,
    uploads: Uploads,
    /// Pushed manifests, by name, then by tag or digest.
    taken: Mutex<HashMap<String, HashMap<String, RawManifest>>>,
    /// Whether a client that knows the secret path has sent a request.
    reached: Arc<AtomicBool>,
    /// Why a blob could not be stored.
    full: watch::Sender<Option<String>>,
}

impl Handler {
    pub(super) fn new(
        secret_path: String,
        repositories: Repositories,
        receiver: Option<Arc<dyn Receiver>>,
        directory: PathBuf,
        reached: Arc<AtomicBool>,
        full: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            secret_path,
            repositories,
            receiver,
            directory,
            uploads: Uploads::default(),
            taken: Mutex::default(),
            reached,
            full,
        }
    }

    /// Answers that a blob cannot be written. Daemons try again for a minute, so this also tells the waiting build at once.
    fn disk(&self, error: &std::io::Error) -> Refusal {
        self.full.send_replace(Some(error.to_string()));
        let why = format!("hakobi failed to buffer the blob: {error}");
        Refusal(StatusCode::INSUFFICIENT_STORAGE, "BLOB_UPLOAD_INVALID", why)
    }

    async fn write(&self, writer: &mut SpoolWriter, mut body: Incoming) -> Result<(), Refusal> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                writer.write(data).await.map_err(|error| self.disk(&error))?;
            }
        }
        Ok(())
    }

    fn receiver(&self) -> Result<&dyn Receiver, Refusal> {
        self.receiver.as_deref().ok_or_else(|| refused("pushes are not accepted here"))
    }

    /// Returns the rest of a path that begins with the secret path, or `None`.
    fn below_word<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix("/v2/")?.strip_prefix(&*self.secret_path)?.strip_prefix('/')
    }

    /// Returns whether a request contains the secret path.
    pub(super) fn is_addressed<B>(&self, request: &Request<B>) -> bool {
        self.below_word(request.uri().path()).is_some()
    }

    pub(super) async fn handle(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let shown = debug::Request::new("endpoint", request.method().as_str(), "127.0.0.1", request.uri().path(), 1);
        let answer = self.answer(request).await;
        shown.answered(answer.status().as_u16());
        Ok(answer)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.route(request).await {
            Ok(answer) => answer,
            Err(Refusal(status, code, message)) => {
                let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
                let mut answer = Response::new(full(body.into()));
                *answer.status_mut() = status;
                answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
                answer
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        let not_found = || Refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "unknown repository".to_owned());
        if matches!(&*path, "/v2/" | "/v2") {
            return Ok(answer(StatusCode::OK, &[("Docker-Distribution-Api-Version", "registry/2.0".to_owned())]));
        }
        // Names may contain slashes, so the path is split from the right.
        let parts: Vec<&str> = self.below_word(&path).ok_or_else(not_found)?.split('/').collect();
        self.reached.store(true, Ordering::Relaxed);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.method().clone(), &parts[..]) {
            (_, [name @ .., "blobs", digest]) if reads && self.repositories.has(&name.join("/")) => {
                self.repositories.blob(&name.join("/"), digest, &request).await
            }
            (_, [name @ .., "manifests", reference]) if reads && self.repositories.has(&name.join("/")) => {
                self.repositories.manifest(&name.join("/"), reference, &request).await
            }
            (Method::HEAD, [.., "blobs", digest]) => self.blob(digest).await,
            (Method::POST, [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"]) => {
                let location = |id: &str| format!("/v2/{}/{}/blobs/uploads/{id}", self.secret_path, name.join("/"));
                self.begin(&request, location).await
            }
            (Method::GET, [.., "blobs", "uploads", id]) => self.progress(&path, id),
            (Method::PATCH, [.., "blobs", "uploads", id]) => {
                let id = (*id).to_owned();
                self.append(&path, &id, request).await
            }
            (Method::PUT, [.., "blobs", "uploads", id]) => {
                let id = (*id).to_owned();
                self.finish(&id, request).await
            }
            (Method::DELETE, [.., "blobs", "uploads", id]) => {
                drop(self.uploads.take(id));
                Ok(answer(StatusCode::NO_CONTENT, &[]))
            }
            // Neither cache repositories nor pushed images support deleting (distribution-spec, "Content Management").
            (Method::DELETE, [.., "blobs" | "manifests", _]) => Err(refused("deleting is not supported here")),
            (Method::PUT, [name @ .., "manifests", reference]) => {
                let (name, reference) = (name.join("/"), (*reference).to_owned());
                self.manifest(&name, &reference, request).await
            }
            (_, [name @ .., "manifests", reference]) if reads => self.taken(&name.join("/"), reference, &request),
            _ => Err(not_found()),
        }
    }

    /// Answers with a pushed manifest, because some clients check that it is there.
    fn taken(&self, name: &str, reference: &str, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        let unknown = || Refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "unknown manifest".to_owned());
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let manifest = taken.get(name).and_then(|own| own.get(reference)).ok_or_else(unknown)?;
        Ok(manifest_answer(manifest.clone(), request))
    }

    async fn blob(&self, digest: &str) -> Result<Answer, Refusal> {
        let unknown = || Refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "unknown blob".to_owned());
        let digest: Digest = digest.parse().map_err(|_| unknown())?;
        let size = self.receiver()?.has(&digest).await.ok_or_else(unknown)?;
        Ok(answer(StatusCode::OK, &[("Content-Length", size.to_string()), ("Docker-Content-Digest", digest.to_string())]))
    }

    async fn begin(&self, request: &Request<Incoming>, location: impl Fn(&str) -> String) -> Result<Answer, Refusal> {
        // A mount from one of hakobi's own names: a known blob needs no upload.
        if let Some(digest) = query(request, "mount").and_then(|digest| digest.parse::<Digest>().ok())
            && self.receiver()?.has(&digest).await.is_some()
        {
            return Ok(answer(
                StatusCode::CREATED,
                &[("Docker-Content-Digest", digest.to_string()), ("Location", location("mounted"))],
            ));
        }
        let receiver = self.receiver()?;
        let (writer, spool) = Spool::create(&self.directory).map_err(|error| self.disk(&error))?;
        let id = format!("{:032x}", rand::random::<u128>());
        receiver.arriving(spool.clone()).await;
        self.uploads.put(id.clone(), Upload { writer, spool });
        Ok(answer(StatusCode::ACCEPTED, &[("Location", location(&id)), ("Range", "0-0".to_owned()), ("Docker-Upload-Uuid", id)]))
    }

    fn progress(&self, path: &str, id: &str) -> Result<Answer, Refusal> {
        let upload = self.uploads.take(id).ok_or_else(unknown_upload)?;
        let range = range(&upload.writer);
        self.uploads.put(id.to_owned(), upload);
        Ok(answer(StatusCode::NO_CONTENT, &[("Location", path.to_owned()), ("Range", range)]))
    }

    async fn append(&self, path: &str, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let mut upload = self.uploads.take(id).ok_or_else(unknown_upload)?;
        // A part that does not start at the end of the last one changes nothing (distribution-spec, "Pushing a blob in chunks").
        let fits = begins(&request).is_none_or(|begins| begins == upload.writer.written());
        if fits {
            self.write(&mut upload.writer, request.into_body()).await?;
        }
        let range = range(&upload.writer);
        self.uploads.put(id.to_owned(), upload);
        Ok(answer(
            if fits { StatusCode::ACCEPTED } else { StatusCode::RANGE_NOT_SATISFIABLE },
            &[("Location", path.to_owned()), ("Range", range), ("Docker-Upload-Uuid", id.to_owned())],
        ))
    }

    async fn finish(&self, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let invalid = |text: &str| Refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text.to_owned());
        let digest: Digest =
            query(&request, "digest").and_then(|digest| digest.parse().ok()).ok_or_else(|| invalid("invalid digest"))?;
        let mut upload = self.uploads.take(id).ok_or_else(unknown_upload)?;
        self.write(&mut upload.writer, request.into_body()).await?;
        if upload.writer.identity().digest != digest {
            upload.writer.fail(&std::io::Error::other("the daemon sent bytes that do not match its digest"));
            return Err(invalid("the bytes do not match the digest"));
        }
        let identity = upload.writer.finish();
        debug_assert!(upload.spool.known().is_some());
        self.receiver()?.arrived(identity, upload.spool).await;
        let location = request_location(&self.secret_path, &digest);
        Ok(answer(StatusCode::CREATED, &[("Location", location), ("Docker-Content-Digest", digest.to_string())]))
    }

    async fn manifest(&self, name: &str, reference: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let invalid = |text: String| Refusal(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", text);
        let media_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = Limited::new(request.into_body(), MANIFEST_LIMIT)
            .collect()
            .await
            .map_err(|error| invalid(format!("failed to read the manifest: {error}")))?
            .to_bytes();
        let manifest = RawManifest { media_type, bytes };
        let digest = manifest.digest();
        if reference.parse::<Digest>().is_ok_and(|asked| asked != digest) {
            return Err(Refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the manifest does not match the digest".to_owned()));
        }
        self.receiver()?.manifest(name, reference, manifest.clone()).await.map_err(invalid)?;
        {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let own = taken.entry(name.to_owned()).or_default();
            own.insert(digest.to_string(), manifest.clone());
            own.insert(reference.to_owned(), manifest);
        }
        let location = format!("/v2/{}/{name}/manifests/{digest}", self.secret_path);
        Ok(answer(StatusCode::CREATED, &[("Location", location), ("Docker-Content-Digest", digest.to_string())]))
    }
}

fn request_location(secret_path: &str, digest: &Digest) -> String {
    format!("/v2/{secret_path}/image/blobs/{digest}")
}

/// Returns the offset where a part begins, or `None` if it does not say that.
fn begins(request: &Request<Incoming>) -> Option<u64> {
    let range = request.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim_start_matches("bytes ").split_once('-')?.0.trim().parse().ok()
}

/// Returns the range of the received bytes, as registries write it: it includes both ends.
fn range(writer: &SpoolWriter) -> String {
    format!("0-{}", writer.written().saturating_sub(1))
}

fn refused(why: &str) -> Refusal {
    Refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why.to_owned())
}

fn unknown_upload() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "unknown upload".to_owned())
}

fn query<B>(request: &Request<B>, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    })
}
