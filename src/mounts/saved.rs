//! What hakobi records of a saved mount, and what a save needs to know and tells.

use serde::{Deserialize, Serialize};

use super::entry::ListedEntry;
use super::file_list::FileList;
use crate::domain::{Descriptor, Digest};

/// A mount in the store, as the record of a build names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMount {
    /// The list of its files.
    pub list: Descriptor,
    /// The packs with the content of its files.
    #[serde(default)]
    pub packs: Vec<Descriptor>,
    /// The number of bytes of all files, without holes.
    pub bytes: u64,
    /// The number of entries that are no directories.
    pub files: u64,
    /// The digest of paths, kinds, sizes and times when hakobi listed the mount ([`super::Summary`]).
    pub summary: Digest,
    /// The kernel's time when the list began, in nanoseconds since 1970.
    pub at: i64,
    /// The latest time of a change of content, in nanoseconds since 1970.
    pub newest: i64,
}

impl SavedMount {
    /// Returns all blobs that the mount needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.list).chain(&self.packs)
    }

    /// Returns whether another mount has the same files.
    #[must_use]
    pub fn has_content_of(&self, other: &Self) -> bool {
        (&self.list, &self.packs, self.bytes, self.files) == (&other.list, &other.packs, other.bytes, other.files)
    }
}

/// A mount as it is in the daemon: the process's entries and its last answer ([`super::protocol::Reply::Listed`]).
#[derive(Debug, Clone)]
pub struct Listing {
    /// All entries, parents first; the first one is the root.
    pub entries: Vec<ListedEntry>,
    /// As in [`SavedMount::summary`].
    pub summary: Digest,
    /// As in [`SavedMount::at`].
    pub at: i64,
    /// As in [`SavedMount::newest`].
    pub newest: i64,
}

/// The mount as an earlier build saved it.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// The record.
    pub mount: &'a SavedMount,
    /// Its list of files.
    pub list: &'a FileList,
}

/// The most that a saved mount may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of files. Of new files, holes count too.
    pub most_bytes: u64,
    /// The most files and hard links.
    pub most_files: u64,
}

/// What a save did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The saved mount.
    pub mount: SavedMount,
    /// Whether the earlier list still describes the mount, so that nothing was uploaded.
    pub is_same: bool,
    /// The files that were left out because of the limits, with hard links.
    pub dropped_files: u64,
    /// The bytes of the dropped files.
    pub dropped_bytes: u64,
    /// The files that vanished or changed during the save, and are left out.
    pub gone: u64,
    /// The bytes that the process sent.
    pub read: u64,
    /// The bytes of content that the store lacked, before compression.
    pub new: u64,
    /// The bytes of new packs and the list.
    pub uploaded: u64,
}
