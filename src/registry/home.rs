//! Where images are: a repository of a registry, or what stands in for one. What reads and writes images knows no more of it.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::client::Client;
use super::error::{Error, Kind, Result};
use super::manifest::Put;
use super::upload::Uploaded;
use super::upload_body::Progress;
use crate::domain::{Digest, RawManifest, Repository};
use crate::transfer::{BlobSource, ByteStream};

/// Images that can be read.
#[async_trait]
pub trait Source: Send + Sync {
    /// What it is called.
    fn repository(&self) -> &Repository;

    /// The manifest of a tag or digest, verified. Returns `None` if there is none.
    async fn manifest(&self, reference: &str) -> Result<Option<RawManifest>>;

    /// A blob's bytes from this offset; read from 0 they are verified. [`Kind::NotFound`] where it is not there.
    async fn open_blob(&self, digest: &Digest, size: Option<u64>, offset: u64) -> Result<ByteStream>;
}

/// Where images can be put.
#[async_trait]
pub trait Home: Source {
    /// Which of these blobs are there, with their sizes in bytes.
    async fn sizes(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>>;

    /// Takes a blob, while it is still arriving where its source is, or mounts it from another repository of the same place.
    async fn upload(&self, source: &dyn BlobSource, from: Option<&Repository>, progress: Progress) -> Result<Uploaded>;

    /// Puts a manifest under a tag or its own digest.
    async fn put_manifest(&self, manifest: &RawManifest, reference: &str) -> Result<Put>;
}

/// A small blob as a whole, verified: a config.
///
/// # Errors
/// If it is not there, is larger than `cap` bytes, or is not what its digest says.
pub async fn read_blob(source: &dyn Source, digest: &Digest, cap: u64) -> Result<Bytes> {
    let what = format!("read the blob {digest}");
    let mut damaged = None;
    // Wrong bytes are asked for once more: a cache on the way may have been at fault.
    for _ in 0..2 {
        let mut bytes = Vec::new();
        let stream = source.open_blob(digest, None, 0).await?;
        match stream.take(cap + 1).read_to_end(&mut bytes).await {
            Ok(_) if bytes.len() as u64 > cap => {
                return Err(Error::at(Kind::TooLarge, what, source.repository()).because(&format!("more than {cap} bytes")));
            }
            Ok(_) => return Ok(bytes.into()),
            Err(error) => match error.downcast::<Error>() {
                Ok(error) if error.kind == Kind::Damaged => damaged = Some(error),
                Ok(error) => return Err(error),
                Err(error) => return Err(Error::at(Kind::Network, what, source.repository()).because(&error.to_string())),
            },
        }
    }
    Err(damaged.unwrap_or_else(|| Error::at(Kind::Damaged, what, source.repository())))
}

#[async_trait]
impl Source for Client {
    fn repository(&self) -> &Repository {
        Self::repository(self)
    }

    async fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        Self::manifest(self, reference).await
    }

    async fn open_blob(&self, digest: &Digest, size: Option<u64>, offset: u64) -> Result<ByteStream> {
        Self::open_blob(self, digest, size, offset).await
    }
}

#[async_trait]
impl Home for Client {
    async fn sizes(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        Self::present(self, digests).await
    }

    async fn upload(&self, source: &dyn BlobSource, from: Option<&Repository>, progress: Progress) -> Result<Uploaded> {
        Self::upload(self, source, from, progress).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, reference: &str) -> Result<Put> {
        Self::put_manifest(self, manifest, reference).await
    }
}
