//! The path index: what file operations can meet in a state, made from its layers without keeping a byte of their files.
//!
//! One index stands for one layer, under its blob and diff ID, and those of a state's layers laid over each other are the state's: so a
//! layer that many states share is looked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::rows::Rows;
use crate::domain::{is_below, shown, spelled};
use crate::hidden::Hidden;
use crate::transfer::{LayerEntries, LayerEntry};

/// Most links that are followed for one path, as in Linux.
const LINKS: usize = 255;

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

/// What one layer does to the paths below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Rows", try_from = "Rows")]
pub struct LayerIndex {
    /// What is there then, by path from the root without a leading `/`, as [`spelled`].
    pub entries: BTreeMap<String, PathEntry>,
    /// What of lower layers is not there any more (`.wh.NAME`).
    pub removed: BTreeSet<String>,
    /// Directories of which lower layers' content is hidden (`.wh..wh..opq`).
    pub opaque: BTreeSet<String>,
}

impl LayerIndex {
    /// Whether a hidden value stands in one of its paths: its record has these in parts.
    #[must_use]
    pub fn holds(&self, hidden: &Hidden) -> bool {
        let links = self.entries.values().filter_map(|met| match &met.kind {
            Kind::Link(target) => Some(target),
            _ => None,
        });
        self.entries.keys().chain(&self.removed).chain(&self.opaque).chain(links).any(|path| hidden.is_in(path.as_bytes()))
    }

    /// Reads a layer's tar to its end.
    ///
    /// # Errors
    /// If it cannot be read, or has names that lead out of the root.
    pub fn of_tar(from: impl Read) -> io::Result<Self> {
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
                // What AUFS kept for itself.
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
                tar::EntryType::Symlink if entry.link.is_empty() => return Err(io::Error::other("a link leads nowhere")),
                tar::EntryType::Symlink => PathEntry::plain(Kind::Link(spelled(&entry.link))),
                tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => PathEntry::plain(Kind::Other),
                other => return Err(io::Error::other(format!("{} is of the kind {other:?}", shown(&path)))),
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

    /// Puts a path; the directories above it are implied where nothing tells of them.
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

fn has_bytes(entry: &LayerEntry) -> bool {
    entry.header.entry_type() != tar::EntryType::Link && !entry.sparse
}

/// All paths of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathIndex {
    entries: BTreeMap<String, PathEntry>,
}

impl PathIndex {
    /// That of these layers, from the lowest up.
    #[must_use]
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a LayerIndex>) -> Self {
        let mut index = Self::default();
        layers.into_iter().for_each(|layer| index.apply(layer));
        index
    }

    /// Lays a layer on top.
    pub fn apply(&mut self, layer: &LayerIndex) {
        for path in &layer.opaque {
            self.clear(path);
        }
        for path in &layer.removed {
            self.remove(path);
        }
        for (path, met) in &layer.entries {
            let lower = self.entries.get(path);
            let met = match lower {
                // Whether it keeps the header that it has below is up to the daemon's store.
                Some(lower) if met.implied && lower.kind == Kind::Directory => {
                    let implied = (lower.mode, lower.owner) != (met.mode, met.owner);
                    PathEntry { implied: implied || lower.implied, ..lower.clone() }
                }
                Some(lower) if lower.kind == Kind::Directory && met.kind != Kind::Directory => {
                    self.remove(path);
                    met.clone()
                }
                // Nothing is hidden by it: it is made as implied directories are.
                None if met.implied => PathEntry { implied: false, ..met.clone() },
                _ => met.clone(),
            };
            self.entries.insert(path.clone(), met);
        }
    }

    fn clear(&mut self, directory: &str) {
        let below: Vec<String> = self.below(directory).map(|(path, _)| path.to_owned()).collect();
        below.iter().for_each(|path| drop(self.entries.remove(path)));
    }

    fn remove(&mut self, path: &str) {
        self.clear(path);
        self.entries.remove(path);
    }

    /// What a path is, from the root, with or without a leading `/`; no link is followed. The root has no entry.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&PathEntry> {
        self.entries.get(path.trim_start_matches('/'))
    }

    /// All paths below a directory, without a leading `/`; all there are for the root.
    pub fn below(&self, directory: &str) -> impl Iterator<Item = (&str, &PathEntry)> {
        let directory = directory.trim_matches('/').to_owned();
        let start = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let range = self.entries.range(start..).map(|(path, met)| (&**path, met));
        range.take_while(move |(path, _)| directory.is_empty() || is_below(path, &directory))
    }

    /// Where a path leads, with all links on its way and at its end followed within the root, and without a leading `/`. What does
    /// not exist stands as it is (containerd `fs.RootPath`); nothing where links lead to each other.
    #[must_use]
    pub fn resolved(&self, path: &str) -> Option<String> {
        self.walk(path).map(|(at, _)| at)
    }

    /// As [`PathIndex::resolved`], with the links that were followed.
    #[must_use]
    pub fn walk(&self, path: &str) -> Option<(String, Vec<String>)> {
        follow(path, |path| match self.entries.get(path) {
            Some(PathEntry { kind: Kind::Link(target), .. }) => Some(target),
            _ => None,
        })
    }
}

/// Where a path leads, and the links on its way, where `link` has their targets; nothing where links lead to each other.
pub(super) fn follow<'a>(path: &str, link: impl Fn(&str) -> Option<&'a str>) -> Option<(String, Vec<String>)> {
    let parts = |path: &str| path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (mut open, mut at, mut links) = (parts(path), String::new(), Vec::new());
    while let Some(part) = open.pop() {
        match &*part {
            "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = joined(&at, &part);
        if let Some(target) = link(&next) {
            if links.len() == LINKS {
                return None;
            }
            links.push(next);
            if target.starts_with('/') {
                at.clear();
            }
            open.extend(parts(target));
        } else {
            at = next;
        }
    }
    Some((at, links))
}

/// A path below a directory, neither with a leading `/`.
#[must_use]
pub fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// A path without `.` and empty parts.
///
/// # Errors
/// If it has `..`.
pub(super) fn cleaned(path: &str) -> io::Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(io::Error::other(format!("{} leads out of the layer", shown(path))));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
