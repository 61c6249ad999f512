//! The interface of a store.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::AsyncReadExt as _;

use super::{Error, Fault, Name, Object, Result};
use crate::domain::{Digest, Repository};
use crate::transfer::{BlobSource, ByteStream, BytesSource};

/// How many objects are removed at once, one by one.
const AT_ONCE: usize = 16;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, in seconds of the Unix epoch.
    pub written: u64,
}

/// Stores objects. A miss is `Ok(None)`. An error is a fault, and never means that an object is missing.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Returns the size of an object in bytes, or `None` if it is missing.
    async fn size(&self, name: &Name) -> Result<Option<u64>>;

    /// Opens a range of an object; the stream is shorter if the object ends before. Returns `None` if it is missing.
    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>>;

    /// Writes an object completely or not at all, and replaces an existing one atomically. A store implements this; callers use
    /// [`ObjectStore::write`].
    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()>;

    /// Lists all objects below a prefix that ends with `/`, or all objects, in any order.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// Removes an object; a missing object is no fault.
    async fn delete(&self, name: &Name) -> Result<()>;

    /// Removes objects; missing ones are no fault. A store that removes many at once overrides this.
    async fn delete_all(&self, names: &[Name]) -> Result<()> {
        let names = names.to_vec();
        let deleted = stream::iter(names).map(|name| async move { self.delete(&name).await }).buffer_unordered(AT_ONCE);
        deleted.try_collect().await
    }

    /// Removes what writes left behind that were broken off before this time, in seconds of the Unix epoch. Returns their number.
    async fn delete_leftovers(&self, _before: u64) -> Result<u64> {
        Ok(0)
    }

    /// Notes that this repository may have a blob, so that a store in the same registry takes it from there.
    fn note_origin(&self, _: &Digest, _: &Repository) {}

    /// Returns whether this run's write of a blob moved no bytes, because the store took it from another repository.
    fn is_mounted(&self, _: &Digest) -> bool {
        false
    }

    /// Notes that a record in use names this object: a store that drops what nobody uses does not drop it.
    fn note_use(&self, _: &Name) {}

    /// Returns the repository that has its blobs, or `None` if it is not in a registry.
    fn repository(&self) -> Option<&Repository> {
        None
    }

    /// Writes a small object, if the one that is there has these bytes, or if there is none and `before` is `None`. Returns whether it did.
    /// Two runs that replace the same bytes at once do not both succeed; of a store without such a write, they may.
    async fn replace(&self, name: &Name, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
        if !is_still(self, name, before).await? {
            return Ok(false);
        }
        self.write(name, &BytesSource::new(after)).await.map(|()| true)
    }

    /// Makes visible to other runs what was written. A store without this step has done so with each write.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Writes the bytes of a source under a name, if they match the digest of the name, or else of the source. hakobi hashes them
    /// during the transfer. A fault of the source has its own kind ([`super::Fault::Source`]).
    async fn write(&self, name: &Name, source: &dyn BlobSource) -> Result<()> {
        let object = Object::new(name, source).await?;
        self.put(name, &object).await.map_err(|error| object.blame(name, error))
    }
}

/// Returns whether an object has these bytes, or is missing for `None`.
async fn is_still<S: ObjectStore + ?Sized>(store: &S, name: &Name, expected: Option<&Bytes>) -> Result<bool> {
    let length = expected.map_or(0, |bytes| bytes.len() as u64);
    let (there, expected) = match (store.read(name, 0..length + 1).await?, expected) {
        (Some(there), Some(expected)) => (there, expected),
        (there, expected) => return Ok(there.is_none() && expected.is_none()),
    };
    let mut bytes = Vec::new();
    let broken = |error: std::io::Error| Error::new(Fault::Unreachable, format!("failed to read {name}: {error}"));
    there.take(length + 1).read_to_end(&mut bytes).await.map_err(broken)?;
    Ok(bytes == *expected)
}
