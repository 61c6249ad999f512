//! Reads the records of a run's cache. A fault is told once, and is a miss from then on.

use std::collections::HashMap;

use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::domain::StepKey;
use crate::error::Result;
use crate::plan::{Record, Records};

/// What a store remembers. A fault is told once, and is a miss from then on.
pub struct RecordReader<'a> {
    pub records: Records,
    pub faults: &'a CacheFaults<'a>,
}

impl<'a> RecordReader<'a> {
    pub fn of(kept: &CacheSession, faults: &'a CacheFaults<'a>) -> Self {
        Self { records: kept.records(), faults }
    }

    /// The record of one key.
    pub async fn one<T: Record>(&self, key: &StepKey) -> Result<Option<T>> {
        Ok(self.read(std::slice::from_ref(key)).await?.remove(key))
    }

    /// Notes that the record of a key is not used, as it does not fit what is known.
    pub fn refuse(&self, key: &StepKey) {
        self.records.refuse(key);
    }

    pub async fn read<T: Record>(&self, keys: &[StepKey]) -> Result<HashMap<StepKey, T>> {
        if keys.is_empty() || self.faults.gave_up() {
            return Ok(HashMap::new());
        }
        match self.records.read(keys).await {
            Ok(found) => Ok(found),
            Err(error) => {
                self.faults.give_up();
                self.faults.tell("is not used", &error)?;
                Ok(HashMap::new())
            }
        }
    }
}
