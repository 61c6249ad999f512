//! Since when blobs are not needed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::store::{Blobs, Name, Result, read_undamaged};
use crate::transfer::BytesSource;

/// The version of the format. Marks of another version count as none.
const VERSION: u32 = 1;

/// Largest list of marks, in bytes: more than 500,000 blobs.
const LIMIT: u64 = 64 << 20;

/// When a run of `prune` first found each blob unused, in seconds of the Unix epoch.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    version: u32,
    unused: BTreeMap<Digest, u64>,
}

impl Marks {
    /// Reads the marks of earlier runs.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn read(blobs: &Blobs) -> Result<Self> {
        let bytes = read_undamaged(blobs.store(), &Name::marks(), LIMIT).await?;
        let marks = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(marks.filter(|marks| marks.version == VERSION).unwrap_or(Self { version: VERSION, unused: BTreeMap::new() }))
    }

    /// Returns since when a blob is unused, and marks it if that is new.
    pub(super) fn since(&mut self, digest: &Digest, now: u64) -> u64 {
        *self.unused.entry(digest.clone()).or_insert(now)
    }

    /// Keeps only some of the marks.
    pub(super) fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.unused.retain(|digest, _| keep(digest));
    }

    /// Writes the marks for later runs.
    ///
    /// # Errors
    /// If the store does not accept them.
    pub(super) async fn write(&self, blobs: &Blobs) -> Result<()> {
        if self.unused.is_empty() {
            return blobs.store().delete(&Name::marks()).await;
        }
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        blobs.store().write(&Name::marks(), &BytesSource::new(bytes.into())).await
    }
}
