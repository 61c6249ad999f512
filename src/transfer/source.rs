//! Sources of uploads.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::domain::Digest;

/// A stream of bytes.
pub type ByteStream = Pin<Box<dyn AsyncRead + Send>>;

/// The digest and the size of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

/// A blob that can be read several times, from any offset. An interrupted upload thus resumes where it stopped.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// Returns the digest and size if they are known before the bytes are read.
    fn known(&self) -> Option<Identity>;

    /// Returns the bytes from this offset to the end. If the blob is incomplete, the stream waits for the rest.
    async fn open(&self, offset: u64) -> std::io::Result<ByteStream>;

    /// Waits until the blob is complete, and returns its digest and size.
    async fn identity(&self) -> std::io::Result<Identity>;
}

/// A small blob in memory, such as an image config.
#[derive(Debug, Clone)]
pub struct BytesSource {
    bytes: Bytes,
    identity: Identity,
}

impl BytesSource {
    /// Creates a source of these bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let identity = Identity { digest: Digest::hash(&bytes), size: bytes.len() as u64 };
        Self { bytes, identity }
    }

    /// Returns the digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.identity.digest
    }
}

#[async_trait]
impl BlobSource for BytesSource {
    fn known(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    async fn open(&self, offset: u64) -> std::io::Result<ByteStream> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(Box::pin(std::io::Cursor::new(self.bytes.slice(start..))))
    }

    async fn identity(&self) -> std::io::Result<Identity> {
        Ok(self.identity.clone())
    }
}
