//! Stores of images: a repository of a registry, or a stand-in. Code that reads and writes images sees only these traits.

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

/// A source of images.
#[async_trait]
pub trait Source: Send + Sync {
    /// Returns its repository name.
    fn repository(&self) -> &Repository;

    /// Returns the registry's repository that has its blobs, or `None` if that is no other than [`Source::repository`], or none.
    fn backing(&self) -> Option<&Repository> {
        None
    }

    /// Returns the verified manifest of a tag or digest. Returns `None` if there is none.
    async fn manifest(&self, reference: &str) -> Result<Option<RawManifest>>;

    /// Returns a blob's bytes from this offset, verified if the offset is 0. Fails with [`Kind::NotFound`] if it has no such blob.
    async fn open_blob(&self, digest: &Digest, size: Option<u64>, offset: u64) -> Result<ByteStream>;
}

/// A destination of images.
#[async_trait]
pub trait Home: Source {
    /// Returns those of these blobs that it has, with their sizes in bytes.
    async fn sizes(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>>;

    /// Stores a blob while the source still receives it, or mounts it from another repository of the same place.
    async fn upload(&self, source: &dyn BlobSource, from: Option<&Repository>, progress: Progress) -> Result<Uploaded>;

    /// Stores a manifest under a tag or its own digest.
    async fn put_manifest(&self, manifest: &RawManifest, reference: &str) -> Result<Put>;
}

/// Reads and verifies a small blob, such as a config, as a whole.
///
/// # Errors
/// If it does not exist, is larger than `cap` bytes, or does not match its digest.
pub async fn read_blob(source: &dyn Source, digest: &Digest, cap: u64) -> Result<Bytes> {
    let what = format!("read the blob {digest}");
    let mut damaged = None;
    // hakobi requests wrong bytes once more: a cache in between may be at fault.
    for _ in 0..2 {
        let mut bytes = Vec::new();
        let stream = source.open_blob(digest, None, 0).await?;
        match stream.take(cap + 1).read_to_end(&mut bytes).await {
            Ok(_) if bytes.len() as u64 > cap => {
                return Err(
                    Error::at(Kind::TooLarge, what, source.repository()).because(&format!("it has more than {cap} bytes"))
                );
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
