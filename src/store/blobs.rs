//! Blobs of a store, by their digests: what is read is verified while it streams.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{Error, Fault, Name, Result, Store};
use crate::domain::{Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream};

/// The blobs of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<dyn Store>);

impl Blobs {
    /// Those of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// The size of a blob that is kept, in bytes.
    ///
    /// # Errors
    /// If the store cannot tell.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.0.size(&Name::blob(digest)).await
    }

    /// The bytes of a blob. The stream ends with an error where they are not those of the digest, before its end was told.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(&self, digest: &Digest) -> Result<Option<ByteStream>> {
        let stream = self.0.read(&Name::blob(digest), 0..u64::MAX).await?;
        Ok(stream.map(|stream| Box::pin(Verified::new(stream, digest.clone())) as ByteStream))
    }

    /// A small blob, verified.
    ///
    /// # Errors
    /// If it has more than `limit` bytes, is damaged, or the store cannot be read.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>> {
        let Some(mut stream) = self.0.read(&Name::blob(digest), 0..limit.saturating_add(1)).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        let broken = |error: io::Error| Error::new(Fault::Unreachable, format!("cannot read blob {digest}: {error}"));
        stream.read_to_end(&mut bytes).await.map_err(broken)?;
        if bytes.len() as u64 > limit {
            return Err(Error::new(Fault::Damaged, format!("blob {digest} has more than {limit} bytes")));
        }
        if Digest::of(&bytes) != *digest {
            return Err(damaged(digest));
        }
        Ok(Some(bytes.into()))
    }

    /// Keeps a blob that is not there yet; says whether it was new.
    ///
    /// # Errors
    /// If its bytes break off, or the store does not take them.
    pub async fn keep(&self, source: &dyn BlobSource) -> Result<bool> {
        let broken = |error: io::Error| Error::new(Fault::Other, format!("the layer to be kept broke off: {error}"));
        let identity = match source.known() {
            Some(identity) => identity,
            None => source.identity().await.map_err(broken)?,
        };
        let name = Name::blob(&identity.digest);
        // One of another size is a damaged one, which this mends.
        if self.0.size(&name).await? == Some(identity.size) {
            return Ok(false);
        }
        self.0.write(&name, source).await?;
        Ok(true)
    }
}

fn damaged(digest: &Digest) -> Error {
    Error::new(Fault::Damaged, format!("blob {digest} is damaged"))
}

/// Passes bytes on and fails at the end where they were others.
struct Verified {
    inner: ByteStream,
    expected: Digest,
    hasher: Option<Hasher>,
}

impl Verified {
    fn new(inner: ByteStream, expected: Digest) -> Self {
        Self { inner, expected, hasher: Some(Hasher::default()) }
    }
}

impl AsyncRead for Verified {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = std::task::ready!(self.inner.as_mut().poll_read(context, buffer));
        let new = &buffer.filled()[before..];
        if read.is_ok() && new.is_empty() && buffer.remaining() > 0 {
            let ended = self.hasher.take().is_none_or(|hasher| hasher.digest() == self.expected);
            return Poll::Ready(if ended { Ok(()) } else { Err(io::Error::other(damaged(&self.expected))) });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(new);
        }
        Poll::Ready(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::transfer::BytesSource;

    #[tokio::test]
    async fn a_flipped_byte_is_never_passed_off() {
        let store = Arc::new(MemoryStore::default());
        let blobs = Blobs::new(store.clone());
        let digest = Digest::of(b"layer");
        assert!(blobs.keep(&BytesSource::new("layer".into())).await.expect("kept"));
        assert!(!blobs.keep(&BytesSource::new("layer".into())).await.expect("kept"));
        assert_eq!(blobs.read(&digest, 5).await.expect("read").as_deref(), Some(&b"layer"[..]));
        assert!(blobs.read(&digest, 4).await.is_err());
        store.write(&Name::blob(&digest), &BytesSource::new("lazer".into())).await.expect("written");
        assert_eq!(blobs.read(&digest, 5).await.expect_err("damaged").fault(), Fault::Damaged);
        let mut out = Vec::new();
        let error = blobs.open(&digest).await.expect("opened").expect("there").read_to_end(&mut out).await;
        assert!(error.expect_err("damaged").to_string().contains("is damaged"));
    }

    #[tokio::test]
    async fn a_blob_of_another_size_is_mended() {
        let store = Arc::new(MemoryStore::default());
        let blobs = Blobs::new(store.clone());
        store.write(&Name::blob(&Digest::of(b"layer")), &BytesSource::new("lay".into())).await.expect("written");
        assert!(blobs.keep(&BytesSource::new("layer".into())).await.expect("kept"));
        assert!(blobs.read(&Digest::of(b"layer"), 100).await.is_ok());
    }
}
