//! Reads the records of a run's cache. A fault is told once, and is a miss from then on.

use std::collections::HashMap;
use std::hash::Hash;

use crate::cache::fault::Fault;
use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::error::Result;
use crate::plan::{Record, RecordKey, Records};

/// What a store remembers. A fault is told once, and is a miss from then on.
pub struct RecordReader<'a> {
    pub records: Records,
    pub faults: &'a CacheFaults<'a>,
}

impl<'a> RecordReader<'a> {
    pub fn new(kept: &CacheSession, faults: &'a CacheFaults<'a>) -> Self {
        Self { records: kept.records(), faults }
    }

    /// The record of one key.
    pub async fn one<T: Record>(&self, key: &RecordKey<T>) -> Result<Option<T>> {
        Ok(self.read([key], |key| RecordKey::clone(key)).await?.remove(key))
    }

    /// Notes that the record of a key is not used, as it does not fit what is known.
    pub fn refuse<T>(&self, key: &RecordKey<T>) {
        tracing::debug!(%key, kind = std::any::type_name::<T>(), "a record is not used: it does not fit the plan");
        self.records.refuse(key);
    }

    /// Gives the cache up, with a warning: nothing of it is used any more.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn give_up(&self, why: &impl Fault) -> Result<()> {
        self.faults.give_up();
        self.faults.warn("continuing without", why)
    }

    /// The records of these, as [`Records::read`] has them.
    pub async fn read<K: Eq + Hash, T: Record>(
        &self,
        of: impl IntoIterator<Item = K>,
        key: impl Fn(&K) -> RecordKey<T>,
    ) -> Result<HashMap<K, T>> {
        if self.faults.gave_up() {
            return Ok(HashMap::new());
        }
        match self.records.read(of, key).await {
            Ok(found) => {
                tracing::debug!(kind = std::any::type_name::<T>(), found = found.len(), "read records");
                Ok(found)
            }
            Err(error) => self.give_up(&error).map(|()| HashMap::new()),
        }
    }
}
