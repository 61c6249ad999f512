//! The result of a file operation: the entries of its layer.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::Digest;
use crate::layers::LayerIndex;
use crate::layers::entry::{Kind, PathEntry, TEXT};

/// The layer of a file operation: all its entries, by path without a leading `/`, including the parent directories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssembledLayer {
    pub(super) entries: BTreeMap<String, AssembledEntry>,
}

/// A path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssembledEntry {
    /// The kind of file.
    pub kind: AssembledKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// The time in seconds of the Unix epoch; `None` for the time of the build.
    pub modified: Option<u64>,
    /// The attribute `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// Whether the state below may have the same entry: a directory with this metadata, or any file for a file. The containerd
    /// store omits unchanged entries from a layer; Docker's own store does not.
    pub as_below: bool,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssembledKind {
    /// A regular file.
    File(Content),
    /// Another name of an earlier regular file of this layer.
    HardLink(String),
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Link(String),
    /// The path of lower layers is removed.
    Whiteout,
}

/// The source of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of a build context.
    Context {
        /// The number of the operation's input.
        source: usize,
        /// The path in the context.
        path: String,
        /// The path on this machine.
        file: PathBuf,
        /// The size in bytes.
        size: u64,
        /// Whether hakobi has checked that it is no archive, because `ADD` would unpack one.
        plain: bool,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

impl Content {
    /// Returns the text, or `None` if it is not known or too large.
    fn text(&self, content: &dyn Fn(usize, &str) -> Option<Digest>) -> Option<String> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Context { source, path, file, size, .. } if *size <= TEXT => {
                let bytes = std::fs::read(file).ok()?;
                (content(*source, path)? == Digest::hash(&bytes)).then_some(bytes)?
            }
            Self::Context { .. } => return None,
        };
        String::from_utf8(bytes).ok()
    }
}

impl AssembledEntry {
    pub(super) fn whiteout() -> Self {
        Self { kind: AssembledKind::Whiteout, mode: 0, owner: (0, 0), modified: None, capability: None, as_below: false }
    }
}

impl AssembledLayer {
    /// Returns all entries: every parent before its content, and every file before its hard links.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &AssembledEntry)> {
        let mut entries: Vec<(&str, &AssembledEntry)> = self.entries.iter().map(|(path, entry)| (&**path, entry)).collect();
        entries.sort_by(|(a, _), (b, _)| path_order(a, b));
        entries.into_iter()
    }

    /// Returns the index of the tar that [`AssembledLayer::write_tar`] writes at the time `now`, in seconds. The next operation
    /// builds on it. `content` returns the digests of a source's files by the number of the input and the path. The index contains
    /// the texts of `/etc/passwd` and `/etc/group` if they have these digests.
    #[must_use]
    pub fn index(&self, now: u64, content: &dyn Fn(usize, &str) -> Option<Digest>) -> LayerIndex {
        let mut index = LayerIndex::default();
        for (path, entry) in &self.entries {
            let met = match &entry.kind {
                AssembledKind::Whiteout => {
                    index.removed.insert(path.clone());
                    continue;
                }
                AssembledKind::Directory => PathEntry::directory(entry.mode, entry.owner, entry.modified.unwrap_or(now)),
                AssembledKind::Link(target) => PathEntry::plain(Kind::Link(target.clone())),
                AssembledKind::File(file) if matches!(&**path, "etc/passwd" | "etc/group") => {
                    PathEntry { text: file.text(content), ..PathEntry::plain(Kind::File) }
                }
                AssembledKind::File(_) | AssembledKind::HardLink(_) => PathEntry::plain(Kind::File),
            };
            index.insert(path, met);
        }
        index
    }
}

/// Compares paths by components, so that the content of a directory comes right after it.
pub(super) fn path_order(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}
