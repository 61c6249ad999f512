//! Writing an object: small ones at once, others in parts side by side. Every byte goes with its SHA-256.

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

use super::body::body;
use super::{Inner, error};
use crate::store::{Error, Fault, Object, Result};
use crate::transfer::ByteStream;

/// The least size of a part, in bytes; S3 takes none below 5 MiB but the last.
const PART: u64 = 8 << 20;

/// S3 takes no more parts than this.
const MOST_PARTS: u64 = 10_000;

pub(super) async fn write(inner: &Inner, key: &str, object: &Object<'_>) -> Result<()> {
    let broken = |error: std::io::Error| Error::new(Fault::Source, format!("cannot read what is to be kept as {key}: {error}"));
    let size = object.size();
    // The last bytes come only if all are right: no upload of others is completed.
    let mut bytes = object.open().await.map_err(broken)?;
    if size <= PART {
        let bytes = take(&mut bytes, size).await.map_err(broken)?;
        return put(inner, key, bytes).await;
    }
    let part = PART.max(size.div_ceil(MOST_PARTS));
    let upload = Upload::begin(inner, key).await?;
    match upload.parts(&mut bytes, size, part).await {
        Ok(parts) => upload.complete(parts).await,
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// Exactly this many bytes.
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
    let bucket = &inner.settings.bucket;
    let request = inner.client.put_object().bucket(bucket).key(key).checksum_sha256(checksum(bytes.clone()).await);
    let request = request
        .set_server_side_encryption(inner.encryption())
        .set_ssekms_key_id(inner.settings.kms_key.clone().filter(|key| !key.is_empty()))
        .set_storage_class(inner.storage_class());
    match request.body(body(bytes, &inner.pace)).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(error::failed(&format!("write {key}"), "s3:PutObject", bucket, &error)),
    }
}

/// A multipart upload.
struct Upload<'a> {
    inner: &'a Inner,
    key: &'a str,
    id: String,
}

impl<'a> Upload<'a> {
    async fn begin(inner: &'a Inner, key: &'a str) -> Result<Self> {
        let bucket = &inner.settings.bucket;
        let request = inner
            .client
            .create_multipart_upload()
            .bucket(bucket)
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_server_side_encryption(inner.encryption())
            .set_ssekms_key_id(inner.settings.kms_key.clone().filter(|key| !key.is_empty()))
            .set_storage_class(inner.storage_class());
        let begun = request.send().await;
        let begun = begun.map_err(|error| error::failed(&format!("write {key}"), "s3:PutObject", bucket, &error))?;
        let id = begun.upload_id().unwrap_or_default().to_owned();
        Ok(Self { inner, key, id })
    }

    async fn parts(&self, stream: &mut ByteStream, size: u64, part: u64) -> Result<Vec<CompletedPart>> {
        let broken =
            |error: std::io::Error| Error::new(Fault::Source, format!("cannot read what is to be kept as {}: {error}", self.key));
        let mut running = FuturesUnordered::new();
        let mut done = Vec::new();
        let (mut at, mut number) = (0, 0);
        while at < size {
            // The permit is taken before the bytes are, so that memory is bounded over all objects.
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
        let Inner { client, settings, .. } = self.inner;
        let sum = checksum(bytes.clone()).await;
        let request = client.upload_part().bucket(&settings.bucket).key(self.key).upload_id(&self.id).part_number(number);
        let sent = request.checksum_sha256(&sum).body(body(bytes, &self.inner.pace)).send().await;
        let failed = |error| error::failed(&format!("write a part of {}", self.key), "s3:PutObject", &settings.bucket, &error);
        let sent = sent.map_err(failed)?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).checksum_sha256(sum).build())
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<()> {
        let Inner { client, settings, .. } = self.inner;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = client.complete_multipart_upload().bucket(&settings.bucket).key(self.key).upload_id(&self.id);
        match request.multipart_upload(parts).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.abort().await;
                Err(error::failed(&format!("write {}", self.key), "s3:PutObject", &settings.bucket, &error))
            }
        }
    }

    /// Parts that are left cost money. Where this fails too, the bucket's lifecycle rule has to clean up.
    async fn abort(&self) {
        let Inner { client, settings, .. } = self.inner;
        let _ = client.abort_multipart_upload().bucket(&settings.bucket).key(self.key).upload_id(&self.id).send().await;
    }
}
