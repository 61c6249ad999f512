//! A path of a layer, as far as file operations can tell.

/// Largest text of `/etc/passwd` and `/etc/group` that is kept, in bytes.
pub(super) const TEXT: u64 = 1 << 20;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, whatever is in it.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target as it stands.
    Link(String),
    /// A pipe, a device.
    Other,
}

/// A path of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathEntry {
    /// What it is.
    pub kind: Kind,
    /// Of a directory: permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Of a directory.
    pub owner: (u32, u32),
    /// Of a directory, in seconds of the Unix epoch.
    pub modified: u64,
    /// Of `/etc/passwd` and `/etc/group`: what is in them.
    pub text: Option<String>,
    /// Of a directory that its layer only implies: what it is above another is up to the daemon's store.
    pub implied: bool,
}

impl PathEntry {
    /// A path of which only the kind counts.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self { kind, mode: 0, owner: (0, 0), modified: 0, text: None, implied: false }
    }

    /// A directory.
    #[must_use]
    pub fn directory(mode: u32, owner: (u32, u32), modified: u64) -> Self {
        Self { mode, owner, modified, ..Self::plain(Kind::Directory) }
    }
}
