//! A store in memory: for tests, and for a run without a cache.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::small::part;
use super::{Entry, Error, Fault, Name, Object, ObjectStore, Result};
use crate::domain::seconds_now;
use crate::transfer::ByteStream;

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<Name, (Bytes, u64)>>);

impl MemoryStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Name, (Bytes, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an object to these bytes, whatever its name says, like a fault of a disk or another program.
    pub fn set(&self, name: &Name, bytes: Bytes) {
        self.objects().insert(name.clone(), (bytes, seconds_now()));
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn size(&self, name: &Name) -> Result<Option<u64>> {
        Ok(self.objects().get(name).map(|(bytes, _)| bytes.len() as u64))
    }

    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>> {
        Ok(self.objects().get(name).map(|(bytes, _)| part(bytes, &range)))
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()> {
        let broken = |error: std::io::Error| Error::new(Fault::Other, format!("failed to write {name}: {error}"));
        let mut bytes = Vec::new();
        object.open().await.map_err(broken)?.read_to_end(&mut bytes).await.map_err(broken)?;
        self.set(name, bytes.into());
        Ok(())
    }

    async fn replace(&self, name: &Name, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
        let mut objects = self.objects();
        let is_same = objects.get(name).map(|(bytes, _)| bytes) == before;
        if is_same {
            objects.insert(name.clone(), (after, seconds_now()));
        }
        Ok(is_same)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let objects = self.objects();
        let below = objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        Ok(below
            .map(|(name, (bytes, written))| Entry { name: name.clone(), size: bytes.len() as u64, written: *written })
            .collect())
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.objects().remove(name);
        Ok(())
    }
}
