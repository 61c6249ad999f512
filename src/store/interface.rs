//! What a store is, whatever it is made of.

use std::ops::Range;

use async_trait::async_trait;

use super::{Name, Object, Result};
use crate::transfer::{BlobSource, ByteStream};

/// An object, as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is kept under.
    pub name: Name,
    /// In bytes.
    pub size: u64,
    /// When it was last written, in seconds of the Unix epoch.
    pub written: u64,
}

/// Keeps objects. A miss is `Ok(None)`; an error is a fault, and never says that something is not there.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The size of an object, in bytes.
    async fn size(&self, name: &Name) -> Result<Option<u64>>;

    /// These bytes of an object, fewer where it ends before.
    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>>;

    /// Keeps an object, whole or not at all; one that is there is replaced in one moment. This is what a store implements;
    /// [`ObjectStore::write`] is what is called.
    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()>;

    /// All objects below a prefix that ends with `/`, or all, in no order.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// Removes an object; one that is not there is no fault.
    async fn delete(&self, name: &Name) -> Result<()>;

    /// Keeps what a source gives under a name, if its bytes are what the name or else the source says: they are hashed on their
    /// way. What is the source's fault and not the store's is told apart ([`super::Fault::Source`]).
    async fn write(&self, name: &Name, source: &dyn BlobSource) -> Result<()> {
        let object = Object::new(name, source).await?;
        self.put(name, &object).await.map_err(|error| object.blame(name, error))
    }
}
