//! The content of cache mounts (`RUN --mount=type=cache`), carried from machine to machine.
//!
//! BuildKit keeps a cache mount in the daemon, outside of all layers. hakobi reaches it through a container of BuildKit's gateway that
//! has the mount, in which hakobi itself runs as the process. [`protocol`] is what the two say to each other, `inside` the process.

use crate::domain::{Digest, Hasher};

mod chunk;
mod collect;
pub mod conversation;
pub mod entry;
mod error;
mod file_list;
pub mod frame;
pub mod inside;
mod load;
mod pack;
mod parts;
pub mod program;
pub mod protocol;
pub mod record;
mod save;
mod saved;
mod select;
#[cfg(test)]
mod tests;
pub mod times;
mod verify;

pub use load::{load, stream};
pub use parts::{PartSink, PartSource, SentPart};
pub use save::save;
pub use saved::{Earlier, Limits, Listing, Saved, SavedMount};
pub use verify::verify;

/// Returns the [`Summary`] of these entries.
#[cfg(test)]
pub fn summary<'a>(entries: impl IntoIterator<Item = &'a entry::MountEntry>) -> Digest {
    let mut summary = Summary::default();
    for entry in entries {
        summary.add(entry);
    }
    summary.digest()
}

/// Makes a digest of a mount's paths with their kinds, sizes, link targets and times of change: what a tool could tell two states of a
/// mount apart by, without reading the files. Entries are in the order of their paths.
#[derive(Clone, Default)]
pub struct Summary(Hasher);

impl Summary {
    /// Adds the next entry.
    pub fn add(&mut self, entry: &entry::MountEntry) {
        let kind = serde_json::to_string(&entry.kind).unwrap_or_default();
        self.0.update(format!("{}\0{kind}\0{}\n", entry.path, entry.modified).as_bytes());
    }

    /// Returns the digest of all entries.
    #[must_use]
    pub fn digest(self) -> Digest {
        self.0.digest()
    }
}
