//! A cache in memory, for tests of code that reads and writes records.

use std::sync::Arc;

use crate::cache::faults::CacheFaults;
use crate::cache::record_reader::RecordReader;
use crate::event::Events;
use crate::hidden::Hidden;
use crate::plan::Records;
use crate::settings::{CacheMode, CacheSettings, StoreLocation};
use crate::store::{Blobs, MemoryStore};

/// A cache in memory. Clones share their content.
#[derive(Clone)]
pub struct MemoryCache {
    store: Arc<MemoryStore>,
    settings: CacheSettings,
    events: Events,
}

impl Default for MemoryCache {
    fn default() -> Self {
        let settings = CacheSettings {
            location: StoreLocation::Directory("cache".into()),
            shown: "cache".to_owned(),
            scope: "main".to_owned(),
            fallbacks: Vec::new(),
            mode: CacheMode::ReadWrite,
            required: false,
            max_size: None,
        };
        Self { store: Arc::default(), settings, events: Events::none() }
    }
}

impl MemoryCache {
    /// Opens its records like a build.
    pub fn records(&self) -> Records {
        Records::new(Blobs::new(self.store.clone()), vec![self.settings.scope.clone()], true, Hidden::default())
    }

    pub fn faults(&self) -> CacheFaults<'_> {
        CacheFaults::new(&self.settings, &self.events)
    }

    pub fn reader<'a>(&self, faults: &'a CacheFaults<'a>) -> RecordReader<'a> {
        RecordReader { records: self.records(), faults }
    }
}
