//! Reads the records of a run's cache. hakobi reports a fault once; from then on, every record is a miss.

use std::collections::HashMap;
use std::hash::Hash;

use crate::cache::fault::Fault;
use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::error::Result;
use crate::plan::{Record, RecordKey, Records};

/// Reads records of a store. It reports a fault once; from then on, every record is a miss.
pub struct RecordReader<'a> {
    pub records: Records,
    pub faults: &'a CacheFaults<'a>,
}

impl<'a> RecordReader<'a> {
    pub fn new(session: &CacheSession, faults: &'a CacheFaults<'a>) -> Self {
        Self { records: session.records(), faults }
    }

    /// Reads the record of one key. Returns `None` if there is none.
    ///
    /// # Errors
    /// If the cache fails and is required.
    pub async fn one<T: Record>(&self, key: &RecordKey<T>) -> Result<Option<T>> {
        Ok(self.read([key], |key| RecordKey::clone(key)).await?.remove(key))
    }

    /// Notes that hakobi does not use a record, because it does not fit the plan. After hakobi gave the cache up, a record may only
    /// lack others that could not be read, so nothing is said of it.
    pub fn refuse<T>(&self, key: &RecordKey<T>) {
        if self.faults.gave_up() {
            return;
        }
        tracing::debug!(%key, kind = std::any::type_name::<T>(), "a record is not used: it does not fit the plan");
        self.records.refuse(key);
    }

    /// Gives the cache up, with a warning: hakobi does not use it any more.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn give_up(&self, why: &impl Fault) -> Result<()> {
        self.faults.give_up();
        self.faults.warn_without("continuing", why)
    }

    /// Notes once in a run that the cache lacks layers of its records.
    pub fn note_lost_layers(&self) {
        self.faults.note_lost_layers();
    }

    /// Reads the records of these keys, like [`Records::read`].
    ///
    /// # Errors
    /// If the cache fails and is required.
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
