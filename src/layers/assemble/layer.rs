//! What a file operation leaves behind: the entries of its layer.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::Digest;
use crate::layers::LayerIndex;
use crate::layers::entry::{Kind, PathEntry, TEXT};

/// The layer of a file operation: all that is in it, by path without a leading `/`, the directories above each included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssembledLayer {
    pub(super) entries: BTreeMap<String, LaidEntry>,
}

/// A path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidEntry {
    /// What it is.
    pub kind: AssembledKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// In seconds of the Unix epoch; nothing where it is the time of the build.
    pub modified: Option<u64>,
    /// `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// Whether the state below may have just the same there: a directory with this header, or some file where a file is. The
    /// containerd store leaves out of a layer what is not changed, Docker's own does not.
    pub as_below: bool,
}

/// What is at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssembledKind {
    /// A regular file.
    File(Content),
    /// A regular file that is the same as another one of this layer, which stands before it.
    HardLink(String),
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Link(String),
    /// What lower layers have there is removed.
    Whiteout,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In a file of a build context.
    Context {
        /// The number of the operation's input.
        source: usize,
        /// Within the context.
        path: String,
        /// On this machine.
        file: PathBuf,
        /// In bytes.
        size: u64,
        /// Whether it was looked at and is no archive: `ADD` would unpack one.
        plain: bool,
    },
    /// Here.
    Bytes(Arc<[u8]>),
}

impl Content {
    /// The text, if it is known and not too large.
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

impl LaidEntry {
    pub(super) fn whiteout() -> Self {
        Self { kind: AssembledKind::Whiteout, mode: 0, owner: (0, 0), modified: None, capability: None, as_below: false }
    }
}

impl AssembledLayer {
    /// All entries, every parent before what is in it and every file before its hard links.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &LaidEntry)> {
        let mut entries: Vec<(&str, &LaidEntry)> = self.entries.iter().map(|(path, entry)| (&**path, entry)).collect();
        entries.sort_by(|(a, _), (b, _)| path_order(a, b));
        entries.into_iter()
    }

    /// The index of the tar that [`AssembledLayer::write_tar`] writes at the time `now`, in seconds: what the next operation is laid on. `content`
    /// has the digests of a source's files by the number of the input and the path; the texts of `/etc/passwd` and `/etc/group` are
    /// read, and are in the index if they have that digest.
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

/// By components: what is in a directory comes right behind it.
pub(super) fn path_order(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}
