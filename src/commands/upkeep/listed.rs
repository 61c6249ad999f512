//! The objects of a store, listed once.

use std::collections::{BTreeMap, HashSet};

use crate::domain::Digest;
use crate::store::{Entry, Name};

/// The objects of a store.
pub struct Listed {
    /// All names.
    pub names: HashSet<Name>,
    /// The sizes of the blobs, in bytes.
    pub sizes: BTreeMap<Digest, u64>,
}

impl Listed {
    /// Returns the objects of a listing.
    pub fn new(entries: &[Entry]) -> Self {
        let sizes = entries.iter().filter_map(|entry| Some((entry.name.digest()?, entry.size)));
        Self { names: entries.iter().map(|entry| entry.name.clone()).collect(), sizes: sizes.collect() }
    }

    /// Returns the size of the blobs that the store has, in bytes. Each counts once.
    pub fn bytes<'a>(&self, blobs: impl IntoIterator<Item = &'a Digest>) -> u64 {
        blobs.into_iter().collect::<HashSet<_>>().into_iter().filter_map(|digest| self.sizes.get(digest)).sum()
    }
}
