//! The file system that file operations work on: the state below according to its path index, and the changes on top.
//!
//! It behaves like an overlay: a changed path is copied up with all its parent directories, and the copied paths are the layer.

use std::collections::{BTreeMap, BTreeSet};

use super::doubt::{AssemblyDoubt, refused, unsure};
use super::layer::{AssembledEntry, AssembledKind, AssembledLayer, Content, path_order};
use super::links::root_path;
use crate::layers::entry::{Kind, PathEntry};
use crate::layers::index::PathIndex;

/// If a directory has this bit, new files in it get its group.
const SETGID: u32 = 0o2000;

/// Owner and group.
pub(super) type Owner = (u32, u32);

/// The kind of a path of the upper side.
#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    File(Content),
    Directory,
    Link(String),
}

/// A path of the upper side.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// The time in seconds; `None` is the time of the build.
    pub(super) modified: Option<u64>,
    pub(super) capability: Option<Vec<u8>>,
    /// Files with the same number are hard links of each other.
    pub(super) inode: Option<usize>,
}

impl Node {
    pub(super) fn new(kind: NodeKind, mode: u32, owner: Owner, modified: Option<u64>) -> Self {
        Self { kind, mode, owner, modified, capability: None, inode: None }
    }
}

/// The kind of file at a path; links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Directory,
    File,
    Link,
}

pub(super) struct State<'a> {
    base: &'a PathIndex,
    upper: BTreeMap<String, Node>,
    /// Paths of the base that are hidden, with everything below them.
    hidden: BTreeSet<String>,
    inodes: usize,
}

impl<'a> State<'a> {
    pub(super) fn new(base: &'a PathIndex) -> Self {
        Self { base, upper: BTreeMap::new(), hidden: BTreeSet::new(), inodes: 0 }
    }

    /// Returns the path's entry of the base, unless it is hidden.
    fn lower(&self, path: &str) -> Option<&'a PathEntry> {
        let hidden = !self.hidden.is_empty() && at_and_above(path).any(|path| self.hidden.contains(path));
        if hidden { None } else { self.base.get(path) }
    }

    pub(super) fn seen(&self, path: &str) -> Result<Seen, AssemblyDoubt> {
        if path.is_empty() {
            return Ok(Seen::Directory);
        }
        if let Some(node) = self.upper.get(path) {
            return Ok(match node.kind {
                NodeKind::File(_) => Seen::File,
                NodeKind::Directory => Seen::Directory,
                NodeKind::Link(_) => Seen::Link,
            });
        }
        match self.lower(path).map(|met| &met.kind) {
            None => Ok(Seen::Nothing),
            // A copy replaces a pipe or a device like a file.
            Some(Kind::File | Kind::Other) => Ok(Seen::File),
            Some(Kind::Directory) => Ok(Seen::Directory),
            Some(Kind::Link(_)) => Ok(Seen::Link),
        }
    }

    /// Returns where a path leads, with all links followed within the root (containerd `fs.RootPath`).
    pub(super) fn resolved(&self, path: &str) -> Result<String, AssemblyDoubt> {
        root_path(path, |path| {
            if let Some(node) = self.upper.get(path) {
                return if let NodeKind::Link(target) = &node.kind { Some(target) } else { None };
            }
            match self.lower(path) {
                Some(PathEntry { kind: Kind::Link(target), .. }) => Some(target),
                _ => None,
            }
        })
    }

    /// Returns the text of a small file, or `None` if it is not known.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        match self.upper.get(path) {
            Some(Node { kind: NodeKind::File(Content::Bytes(bytes)), .. }) => String::from_utf8(bytes.to_vec()).ok(),
            Some(_) => None,
            None => self.lower(path).and_then(|met| met.text.clone()),
        }
    }

    /// Returns a new number for the hard links of one file in a copy.
    pub(super) fn new_inode(&mut self) -> usize {
        self.inodes += 1;
        self.inodes
    }

    /// Copies up a directory and its parents, with their metadata.
    fn copy_up(&mut self, directory: &str) -> Result<(), AssemblyDoubt> {
        for path in at_and_above(directory) {
            if self.upper.contains_key(path) {
                return Ok(());
            }
            match self.lower(path) {
                Some(met) if met.kind == Kind::Directory && !met.implied => {
                    let node = Node::new(NodeKind::Directory, met.mode, met.owner, Some(met.modified));
                    self.upper.insert(path.to_owned(), node);
                }
                Some(met) if met.kind == Kind::Directory => {
                    return unsure(format!("no layer below determines the mode and owner of /{path}"));
                }
                _ => return unsure(format!("/{path} is not a directory")),
            }
        }
        Ok(())
    }

    /// Notes that the content of a path's directory changes.
    fn touch(&mut self, path: &str) -> Result<(), AssemblyDoubt> {
        let Some(parent) = parent(path) else { return Ok(()) };
        match self.seen(parent)? {
            Seen::Directory => {}
            Seen::Nothing => return refused(format!("open /{path}: no such file or directory")),
            Seen::File | Seen::Link => return refused(format!("open /{path}: not a directory")),
        }
        self.copy_up(parent)?;
        if let Some(node) = self.upper.get_mut(parent) {
            node.modified = None;
        }
        Ok(())
    }

    /// Returns whether a new file at a path gets its directory's group: BuildKit's versions differ in this.
    pub(super) fn inherits_group(&self, path: &str) -> bool {
        let Some(parent) = parent(path) else { return false };
        let mode = self.upper.get(parent).map(|node| node.mode).or_else(|| self.lower(parent).map(|met| met.mode));
        mode.is_some_and(|mode| mode & SETGID != 0)
    }

    /// Creates a directory at a path that does not exist.
    pub(super) fn make_directory(
        &mut self,
        path: &str,
        mode: u32,
        owner: Owner,
        modified: Option<u64>,
    ) -> Result<(), AssemblyDoubt> {
        self.touch(path)?;
        if self.base.get(path).is_some() && self.hidden.contains(path) {
            // The stores express in different ways that the old directory's content is hidden.
            return unsure(format!("the directory /{path} replaces a path of another type"));
        }
        self.upper.insert(path.to_owned(), Node::new(NodeKind::Directory, mode, owner, modified));
        Ok(())
    }

    /// Creates a directory and its parents like fsutil's `MkdirAll`. Returns the new ones.
    pub(super) fn make_directories(
        &mut self,
        path: &str,
        mode: u32,
        owner: Option<Owner>,
        modified: Option<u64>,
    ) -> Result<Vec<String>, AssemblyDoubt> {
        let mut made = Vec::new();
        let mut missing = Vec::new();
        for path in at_and_above(path) {
            match self.seen(path)? {
                Seen::Nothing => missing.push(path),
                Seen::Directory => break,
                Seen::File => return refused(format!("mkdir /{path}: not a directory")),
                Seen::Link => return unsure(format!("hakobi did not follow the link /{path}")),
            }
        }
        for path in missing.into_iter().rev() {
            if self.inherits_group(path) {
                return unsure(format!("the parent directory of /{path} has the setgid bit"));
            }
            self.make_directory(path, mode, owner.unwrap_or_default(), modified)?;
            made.push(path.to_owned());
        }
        Ok(made)
    }

    /// Changes the metadata of an existing directory.
    pub(super) fn change(&mut self, path: &str, change: impl FnOnce(&mut Node)) -> Result<(), AssemblyDoubt> {
        // No layer has an entry for the root.
        if path.is_empty() {
            return Ok(());
        }
        self.copy_up(path)?;
        if let Some(node) = self.upper.get_mut(path) {
            change(node);
        }
        Ok(())
    }

    /// Writes a file or a link, and replaces a file or a link of this name (fsutil `ensureEmptyFileTarget`).
    pub(super) fn put(&mut self, path: &str, node: Node) -> Result<(), AssemblyDoubt> {
        match self.seen(path)? {
            Seen::Directory => return refused(format!("cannot replace to directory /{path} with file")),
            Seen::Nothing => self.touch(path)?,
            Seen::File | Seen::Link => self.remove(path)?,
        }
        self.upper.insert(path.to_owned(), node);
        Ok(())
    }

    /// Removes a path, with everything below it.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), AssemblyDoubt> {
        if self.seen(path)? == Seen::Nothing {
            return Ok(());
        }
        self.touch(path)?;
        if self.lower(path).is_some() {
            self.hidden.insert(path.to_owned());
        }
        self.upper.remove(path);
        let start = format!("{path}/");
        let below: Vec<String> = self
            .upper
            .range(start.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start))
            .cloned()
            .collect();
        below.iter().for_each(|path| drop(self.upper.remove(path)));
        self.hidden.retain(|path| !path.starts_with(&start));
        Ok(())
    }

    /// Returns the layer.
    pub(super) fn finish(self) -> Result<AssembledLayer, AssemblyDoubt> {
        let mut entries = BTreeMap::new();
        let mut firsts: BTreeMap<usize, String> = BTreeMap::new();
        let mut nodes: Vec<(String, Node)> = self.upper.into_iter().collect();
        // In the tar's order, the first name of a file is the file; the others are links to it.
        nodes.sort_by(|(a, _), (b, _)| path_order(a, b));
        for (path, node) in nodes {
            let as_below = match (self.base.get(&path), &node.kind) {
                (Some(met), NodeKind::Directory) => {
                    met.kind == Kind::Directory && (met.mode, met.owner) == (node.mode, node.owner)
                }
                (Some(met), NodeKind::File(_)) => met.kind == Kind::File,
                (Some(met), NodeKind::Link(_)) => matches!(met.kind, Kind::Link(_)),
                (None, _) => false,
            };
            let kind = match node.kind {
                NodeKind::Directory => AssembledKind::Directory,
                NodeKind::Link(target) => AssembledKind::Link(target),
                NodeKind::File(content) => match node.inode.map(|inode| firsts.entry(inode).or_insert_with(|| path.clone())) {
                    Some(first) if *first != path => AssembledKind::HardLink(first.clone()),
                    _ => AssembledKind::File(content),
                },
            };
            let entry = AssembledEntry {
                kind,
                mode: node.mode,
                owner: node.owner,
                modified: node.modified,
                capability: node.capability,
                as_below,
            };
            entries.insert(path, entry);
        }
        for path in self.hidden {
            entries.entry(path).or_insert_with(AssembledEntry::whiteout);
        }
        if let Some(path) = entries.keys().find(|path| path.split('/').any(|part| part.starts_with(".wh."))) {
            return unsure(format!("a layer cannot contain the name /{path}"));
        }
        Ok(AssembledLayer { entries })
    }
}

/// Returns the directory of a path, or `None` in the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Returns a path, and then its parents without the root.
fn at_and_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path).filter(|path| !path.is_empty()), |path| parent(path))
}
