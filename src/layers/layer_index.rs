//! A layer's index in its stored form. A row contains only what differs from the most frequent values, and only the part of a path
//! that differs from the path before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::entry::{Kind, PathEntry, TEXT};
use super::paths::{cleaned, joined};
use crate::domain::{shown, spelled};
use crate::hidden::Hidden;
use crate::transfer::{LayerEntries, LayerEntry};

/// Longest path, in bytes, as in Linux.
const LONGEST: usize = 4096;

/// Most bytes of all paths of a layer: rows that share long prefixes expand to much more than their size.
const MOST: usize = 256 << 20;

/// An index as rows.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Rows {
    rows: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opaque: Vec<String>,
}

/// A path. The field names are short, because there are many rows.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Row {
    /// How many bytes the path shares with the one before.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    shared: usize,
    /// The rest of the path.
    #[serde(rename = "n")]
    name: String,
    /// `d`, `l` or `o`; absent for a file.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    kind: Option<char>,
    /// The target of a link, or the text of a file.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The mode of a directory, if it is not 0755.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    owner: (u32, u32),
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    modified: u64,
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    implied: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The error for rows that are no valid index.
#[derive(Debug, thiserror::Error)]
#[error("failed to read a path index")]
pub(super) struct Broken;

impl From<LayerIndex> for Rows {
    fn from(index: LayerIndex) -> Self {
        let mut before = String::new();
        let mut rows = Vec::with_capacity(index.entries.len());
        for (path, met) in index.entries {
            let same = path.char_indices().zip(before.chars()).take_while(|((_, a), b)| a == b).last();
            let shared = same.map_or(0, |((at, c), _)| at + c.len_utf8());
            let is_directory = met.kind == Kind::Directory;
            let (kind, text) = match met.kind {
                Kind::File => (None, met.text),
                Kind::Directory => (Some('d'), None),
                Kind::Link(target) => (Some('l'), Some(target)),
                Kind::Other => (Some('o'), None),
            };
            let mode = Some(met.mode).filter(|mode| is_directory && *mode != 0o755);
            let name = path[shared..].to_owned();
            rows.push(Row { shared, name, kind, text, mode, owner: met.owner, modified: met.modified, implied: met.implied });
            before = path;
        }
        Self { rows, removed: index.removed.into_iter().collect(), opaque: index.opaque.into_iter().collect() }
    }
}

impl TryFrom<Rows> for LayerIndex {
    type Error = Broken;

    fn try_from(rows: Rows) -> Result<Self, Broken> {
        let mut index = Self::default();
        let mut before = String::new();
        let mut all = 0;
        for row in rows.rows {
            let path = format!("{}{}", before.get(..row.shared).ok_or(Broken)?, row.name);
            all += path.len();
            if path.len() > LONGEST || all > MOST {
                return Err(Broken);
            }
            let met = match (row.kind, row.text) {
                (None, text) => PathEntry { text, ..PathEntry::plain(Kind::File) },
                (Some('d'), None) => {
                    PathEntry { implied: row.implied, ..PathEntry::directory(row.mode.unwrap_or(0o755), row.owner, row.modified) }
                }
                (Some('l'), Some(target)) => PathEntry::plain(Kind::Link(target)),
                (Some('o'), None) => PathEntry::plain(Kind::Other),
                _ => return Err(Broken),
            };
            index.entries.insert(path.clone(), met);
            before = path;
        }
        index.removed = rows.removed.into_iter().collect();
        index.opaque = rows.opaque.into_iter().collect();
        Ok(index)
    }
}

/// The changes that one layer makes to the paths below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Rows", try_from = "Rows")]
pub struct LayerIndex {
    /// The paths of the layer, from the root without a leading `/`, as [`spelled`].
    pub entries: BTreeMap<String, PathEntry>,
    /// Paths of lower layers that the layer removes (`.wh.NAME`).
    pub removed: BTreeSet<String>,
    /// Directories whose content in lower layers is hidden (`.wh..wh..opq`).
    pub opaque: BTreeSet<String>,
}

impl LayerIndex {
    /// Returns whether one of its paths contains a hidden value. A search in the record would not find it, because rows split the
    /// paths.
    #[must_use]
    pub fn holds(&self, hidden: &Hidden) -> bool {
        let links = self.entries.values().filter_map(|met| match &met.kind {
            Kind::Link(target) => Some(target),
            _ => None,
        });
        self.entries.keys().chain(&self.removed).chain(&self.opaque).chain(links).any(|path| hidden.is_in(path.as_bytes()))
    }

    /// Reads the index of a layer's tar, to the tar's end.
    ///
    /// # Errors
    /// If it cannot be read, or has names that lead out of the root.
    pub fn from_tar(from: impl Read) -> io::Result<Self> {
        let mut index = Self::default();
        let mut entries = LayerEntries::new(from);
        while let Some(entry) = entries.next_entry()? {
            let path = cleaned(&spelled(&entry.path))?;
            if path.is_empty() {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                index.opaque.insert(parent.to_owned());
                continue;
            }
            if let Some(name) = name.strip_prefix(".wh.") {
                // AUFS uses other names of this form for itself.
                if !name.starts_with(".wh.") {
                    index.removed.insert(joined(parent, name));
                }
                continue;
            }
            let header = &entry.header;
            let owner = |id: u64| u32::try_from(id).map_err(io::Error::other);
            let met = match header.entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse | tar::EntryType::Link => {
                    PathEntry::plain(Kind::File)
                }
                tar::EntryType::Directory => {
                    let owner = (owner(entry.owner.0)?, owner(entry.owner.1)?);
                    PathEntry::directory(header.mode()? & 0o7777, owner, header.mtime()?)
                }
                tar::EntryType::Symlink if entry.link.is_empty() => return Err(io::Error::other("a link has no target")),
                tar::EntryType::Symlink => PathEntry::plain(Kind::Link(spelled(&entry.link))),
                tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => PathEntry::plain(Kind::Other),
                other => return Err(io::Error::other(format!("{} has the unsupported type {other:?}", shown(&path)))),
            };
            let text = match (&*path, &met.kind) {
                ("etc/passwd" | "etc/group", Kind::File) if entry.size <= TEXT && has_bytes(&entry) => {
                    let mut bytes = Vec::new();
                    entries.read_to_end(&mut bytes)?;
                    String::from_utf8(bytes).ok()
                }
                _ => None,
            };
            index.insert(&path, PathEntry { text, ..met });
        }
        Ok(index)
    }

    /// Inserts a path. Parent directories without an entry become implied directories.
    pub fn insert(&mut self, path: &str, met: PathEntry) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/') {
            if self.entries.get(above).is_some_and(|met| met.kind == Kind::Directory) {
                break;
            }
            self.entries.insert(above.to_owned(), PathEntry { implied: true, ..PathEntry::directory(0o755, (0, 0), 0) });
            parent = above;
        }
        self.entries.insert(path.to_owned(), met);
    }
}

pub(super) fn has_bytes(entry: &LayerEntry) -> bool {
    entry.header.entry_type() != tar::EntryType::Link && !entry.sparse
}
