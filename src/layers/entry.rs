//! A path of a layer, with what file operations need to know.

/// Largest text of `/etc/passwd` and `/etc/group` in an index, in bytes.
pub(super) const TEXT: u64 = 1 << 20;

/// The kind of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with any content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its unresolved target.
    Link(String),
    /// A pipe or a device.
    Other,
}

/// A path of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathEntry {
    /// The kind of file.
    pub kind: Kind,
    /// The permission, setuid, setgid and sticky bits of a directory.
    pub mode: u32,
    /// The owner and group of a directory.
    pub owner: (u32, u32),
    /// The time of a directory, in seconds of the Unix epoch.
    pub modified: u64,
    /// The text of `/etc/passwd` and `/etc/group`.
    pub text: Option<String>,
    /// Whether the layer only implies this directory: its metadata above another directory depends on the daemon's store.
    pub implied: bool,
}

impl PathEntry {
    /// Returns a path that has only a kind.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self { kind, mode: 0, owner: (0, 0), modified: 0, text: None, implied: false }
    }

    /// Returns a directory.
    #[must_use]
    pub fn directory(mode: u32, owner: (u32, u32), modified: u64) -> Self {
        Self { mode, owner, modified, ..Self::plain(Kind::Directory) }
    }
}
