//! The files of a mount, as values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file, directory or link of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// The path from the mount's root, with `/`, as [`crate::domain::spelled`]. The root itself is the empty path.
    pub path: String,
    /// The kind.
    #[serde(flatten)]
    pub kind: MountEntryKind,
    /// Permission, setuid, setgid and sticky bits, as in `chmod`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change of content, in nanoseconds since 1970.
    pub modified: i64,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum MountEntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
    },
    /// Another name of an earlier file.
    HardLink {
        /// The path of that file, spelled.
        of: String,
    },
    /// A symbolic link.
    Link {
        /// Its unchanged target, spelled.
        target: String,
    },
    /// A named pipe.
    Pipe,
}

/// An entry of a mount as it is in the daemon, after the steps that used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: MountEntry,
    /// Whether its content, or anything else of it, may have changed after the given time, by the kernel's own time of the last change
    /// (`ctime`), which no program can set.
    pub changed: bool,
    /// Whether it was read or written since hakobi brought it in. Only files of a file system without access times are never read.
    pub used: bool,
}
