//! What an upload reads from.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::domain::Digest;

/// Bytes that arrive.
pub type ByteStream = Pin<Box<dyn AsyncRead + Send>>;

/// What a blob is, once all of it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of the blob's bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A blob that can be read, and read again from any offset: an upload that was cut off goes on from there.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// The digest and size where they are known before the bytes are read.
    fn known(&self) -> Option<Identity>;

    /// The bytes from this offset to the end. Where the blob is still arriving, the stream waits for the rest.
    async fn open(&self, offset: u64) -> std::io::Result<ByteStream>;

    /// Waits until the blob is whole and says what it is.
    async fn identity(&self) -> std::io::Result<Identity>;
}

/// A small blob in memory: a config.
#[derive(Debug, Clone)]
pub struct BytesSource {
    bytes: Bytes,
    identity: Identity,
}

impl BytesSource {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let identity = Identity { digest: Digest::hash(&bytes), size: bytes.len() as u64 };
        Self { bytes, identity }
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
