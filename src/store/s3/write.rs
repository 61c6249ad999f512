//! Writes an object: a small one in one request, a large one in parallel parts. Every byte is covered by a SHA-256 checksum.

use std::sync::Arc;

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

use super::body::body;
use super::{Inner, error};
use crate::shutdown;
use crate::store::{Error, Fault, Object, Result};
use crate::transfer::ByteStream;

/// Least size of a part, in bytes; S3 accepts no part below 5 MiB, except the last.
const PART: u64 = 8 << 20;

/// S3 accepts no more parts than this.
const MOST_PARTS: u64 = 10_000;

pub(super) async fn write(inner: &Arc<Inner>, key: &str, object: &Object<'_>) -> Result<()> {
    let broken = |error: std::io::Error| Error::new(Fault::Source, format!("failed to read the source of {key}: {error}"));
    let size = object.size();
    // The last bytes come only if all are right, so an upload of wrong bytes is never completed.
    let mut bytes = object.open().await.map_err(broken)?;
    if size <= PART {
        let bytes = take(&mut bytes, size).await.map_err(broken)?;
        return put(inner, key, bytes).await;
    }
    let part = PART.max(size.div_ceil(MOST_PARTS));
    let upload = Upload::begin(inner, key).await?;
    let sent = tokio::select! {
        biased;
        () = shutdown::begun() => Err(Error::new(Fault::Other, format!("failed to write {key}: interrupted"))),
        sent = upload.parts(&mut bytes, size, part) => sent,
    };
    match sent {
        Ok(parts) => upload.complete(parts, size).await,
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// Reads exactly this many bytes.
async fn take(stream: &mut ByteStream, size: u64) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(size).map_err(std::io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes.into())
}

async fn checksum(bytes: Bytes) -> String {
    let hash = tokio::task::spawn_blocking(move || sha2::Sha256::digest(&bytes)).await;
    hash.map(|hash| base64::engine::general_purpose::STANDARD.encode(hash)).unwrap_or_default()
}

async fn put(inner: &Inner, key: &str, bytes: Bytes) -> Result<()> {
    let request = put_request(inner, key, &bytes).await;
    match request.body(body(bytes, &inner.pace)).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(error::failed(&format!("write {key}"), "s3:PutObject", &inner.settings.bucket, &error)),
    }
}

/// Returns the request that writes these bytes, without them.
pub(super) async fn put_request(inner: &Inner, key: &str, bytes: &Bytes) -> PutObjectFluentBuilder {
    let request = inner.client.put_object().bucket(&inner.settings.bucket).key(key);
    request
        .checksum_sha256(checksum(bytes.clone()).await)
        .set_server_side_encryption(inner.encryption())
        .set_ssekms_key_id(inner.settings.kms_key.clone().filter(|key| !key.is_empty()))
        .set_storage_class(inner.storage_class())
}

/// A multipart upload. Dropping it before it is complete aborts it.
struct Upload {
    inner: Arc<Inner>,
    key: String,
    id: String,
    is_over: bool,
    /// Keeps the process from ending before the upload is complete or aborted.
    _open: shutdown::Open,
}

impl Upload {
    async fn begin(inner: &Arc<Inner>, key: &str) -> Result<Self> {
        let open = shutdown::open();
        let (inner, of) = (Arc::clone(inner), key.to_owned());
        // A task of its own: if nobody waits for the answer any more, hakobi still knows which upload to abort.
        let begun = shutdown::spawn(async move {
            let bucket = &inner.settings.bucket;
            let request = inner
                .client
                .create_multipart_upload()
                .bucket(bucket)
                .key(&of)
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .set_server_side_encryption(inner.encryption())
                .set_ssekms_key_id(inner.settings.kms_key.clone().filter(|key| !key.is_empty()))
                .set_storage_class(inner.storage_class());
            let begun = request.send().await;
            let begun = begun.map_err(|error| error::failed(&format!("write {of}"), "s3:PutObject", bucket, &error))?;
            let id = begun.upload_id().unwrap_or_default().to_owned();
            Ok(Self { inner, key: of, id, is_over: false, _open: open })
        });
        let lost = || Error::new(Fault::Other, format!("failed to write {key}: the run is ending"));
        begun.ok_or_else(lost)?.await.map_err(|_| lost())?
    }

    async fn parts(&self, stream: &mut ByteStream, size: u64, part: u64) -> Result<Vec<CompletedPart>> {
        let broken =
            |error: std::io::Error| Error::new(Fault::Source, format!("failed to read the source of {}: {error}", self.key));
        let mut running = FuturesUnordered::new();
        let mut done = Vec::new();
        let (mut at, mut number) = (0, 0);
        while at < size {
            // Take the permit before the bytes, so that memory is limited over all objects.
            let permit = loop {
                tokio::select! {
                    biased;
                    permit = self.inner.parts.acquire() => break permit,
                    Some(finished) = running.next() => done.push(finished?),
                }
            };
            let length = part.min(size - at);
            let bytes = take(stream, length).await.map_err(broken)?;
            at += length;
            number += 1;
            running.push(async move {
                let sent = self.part(number, bytes).await;
                drop(permit);
                sent
            });
        }
        while let Some(finished) = running.next().await {
            done.push(finished?);
        }
        done.sort_by_key(CompletedPart::part_number);
        Ok(done)
    }

    async fn part(&self, number: i32, bytes: Bytes) -> Result<CompletedPart> {
        let Inner { client, settings, .. } = &*self.inner;
        let sum = checksum(bytes.clone()).await;
        let request = client.upload_part().bucket(&settings.bucket).key(&self.key).upload_id(&self.id).part_number(number);
        let sent = request.checksum_sha256(&sum).body(body(bytes, &self.inner.pace)).send().await;
        let failed = |error| error::failed(&format!("write a part of {}", self.key), "s3:PutObject", &settings.bucket, &error);
        let sent = sent.map_err(failed)?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).checksum_sha256(sum).build())
    }

    async fn complete(mut self, parts: Vec<CompletedPart>, size: u64) -> Result<()> {
        let Inner { client, settings, .. } = &*self.inner;
        let whole = composite(&parts);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = client.complete_multipart_upload().bucket(&settings.bucket).key(&self.key).upload_id(&self.id);
        let failed = match request.multipart_upload(parts).send().await {
            Ok(_) => None,
            // The answer may get lost although the object exists; a retry then gets the answer that there is no such upload.
            Err(_) if self.is_there(size, whole.as_deref()).await => None,
            Err(error) => Some(error::failed(&format!("write {}", self.key), "s3:PutObject", &settings.bucket, &error)),
        };
        match failed {
            None => {
                self.is_over = true;
                Ok(())
            }
            Some(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Returns whether the object exists with these bytes, as far as the server reports them: an older object may be damaged.
    async fn is_there(&self, size: u64, whole: Option<&str>) -> bool {
        let Inner { client, settings, .. } = &*self.inner;
        let request = client.head_object().bucket(&settings.bucket).key(&self.key).checksum_mode(ChecksumMode::Enabled);
        let Ok(head) = request.send().await else { return false };
        let same_size = head.content_length().and_then(|length| u64::try_from(length).ok()) == Some(size);
        same_size && head.checksum_sha256().is_none_or(|told| Some(told) == whole)
    }

    /// Aborts the upload, because remaining parts cost money. If this fails too, the bucket's lifecycle rule has to remove them.
    async fn abort(mut self) {
        self.is_over = true;
        abort(&self.inner, &self.key, &self.id).await;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over {
            let (inner, key, id) = (Arc::clone(&self.inner), std::mem::take(&mut self.key), std::mem::take(&mut self.id));
            let _ = shutdown::spawn(async move { abort(&inner, &key, &id).await });
        }
    }
}

async fn abort(inner: &Inner, key: &str, id: &str) {
    let Inner { client, settings, .. } = inner;
    let _ = client.abort_multipart_upload().bucket(&settings.bucket).key(key).upload_id(id).send().await;
}

/// Returns the checksum of an object made of these parts: the checksum of their checksums, and their number (S3, "Composite
/// checksums").
fn composite(parts: &[CompletedPart]) -> Option<String> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut all = sha2::Sha256::new();
    for part in parts {
        all.update(base64.decode(part.checksum_sha256()?).ok()?);
    }
    Some(format!("{}-{}", base64.encode(all.finalize()), parts.len()))
}
