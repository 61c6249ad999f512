//! Compares the entries of a walk with a tree, path by path: are the sent files the hashed files?

use std::collections::HashSet;
use std::sync::Arc;

use super::hash::counts;
use super::tree::{Node, NodeKind, Tree};
use super::walk::{Entry, EntryKind};
use crate::domain::{Digest, shown};

/// The difference of a path from its hashed state. Its text is, for example, `app/a: its mode changed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", shown(path))]
pub struct Difference {
    /// The path, from the root of the context.
    pub path: String,
    /// The change, for a person.
    pub what: &'static str,
}

impl Difference {
    /// Creates a difference at a path.
    #[must_use]
    pub fn at(path: &str, what: &'static str) -> Self {
        Self { path: path.to_owned(), what }
    }

    /// Creates a difference in a file's bytes.
    #[must_use]
    pub fn of_content(path: &str) -> Self {
        Self::at(path, "its content changed")
    }
}

/// A walk that is compared with a tree. Attributes outside the keys (times, other extended attributes) are not compared.
#[derive(Debug, Clone)]
pub struct Held {
    tree: Arc<Tree>,
    seen: HashSet<String>,
}

impl Held {
    /// Begins a walk that must match this tree, which [`hash()`](crate::build_context::hash()) made.
    #[must_use]
    pub fn against(tree: Arc<Tree>) -> Self {
        Self { tree, seen: HashSet::new() }
    }

    /// Compares the next entry. The caller compares the bytes of files ([`Held::content`]).
    ///
    /// # Errors
    /// If the tree has another entry at this path, or none.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Difference> {
        let differs = |what| Err(Difference::at(&entry.path, what));
        let Some(node) = self.tree.get(&entry.path) else { return differs("it is new") };
        let is_same = match (&entry.kind, &node.kind) {
            (EntryKind::File, NodeKind::File(_)) | (EntryKind::Directory, NodeKind::Directory) => true,
            (EntryKind::HardLink(first), NodeKind::File(content)) => self.content(first) == Some(content),
            (EntryKind::Socket, NodeKind::File(content)) => *content == Digest::hash(&[]),
            (EntryKind::Link(target), NodeKind::Link(then)) => target == then,
            (EntryKind::Pipe, NodeKind::Pipe) => true,
            (
                EntryKind::Device { character, major, minor },
                NodeKind::Device { character: kind, major: first, minor: second },
            ) => (character, major, minor) == (kind, first, second),
            _ => false,
        };
        if !is_same {
            return differs(if matches!(entry.kind, EntryKind::Link(_)) {
                "its link target changed"
            } else {
                "its type changed"
            });
        }
        if entry.mode != node.mode {
            return differs("its mode changed");
        }
        if !has_xattrs(entry, node) {
            return differs("its extended attributes changed");
        }
        self.seen.insert(entry.path.clone());
        Ok(())
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// If the tree has a path that the walk lacks.
    pub fn end(&self) -> Result<(), Difference> {
        match self.tree.iter().map(|(path, _)| path).find(|path| !self.seen.contains(path)) {
            Some(path) => Err(Difference::at(&path, "it was removed")),
            None => Ok(()),
        }
    }

    /// Returns the digest of a file's bytes when it was hashed. Returns `None` if the path was no file.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<&Digest> {
        match &self.tree.get(path)?.kind {
            NodeKind::File(content) => Some(content),
            _ => None,
        }
    }
}

fn has_xattrs(entry: &Entry, node: &Node) -> bool {
    let mut counted = entry.xattrs.iter().filter(|(name, _)| counts(name));
    let count = counted.clone().count();
    count == node.xattrs.len() && counted.all(|(name, value)| node.xattrs.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::super::{Selection, hash, walk};
    use super::*;

    /// Returns the difference that a second walk finds after this change to a tree.
    fn after(done: impl FnOnce(&Path)) -> Option<String> {
        let root = tempfile::tempdir().expect("a directory");
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("dir/in")).expect("made");
        for path in ["a", "b", "dir/in/c", "dir-x"] {
            fs::write(at(path), path).expect("written");
        }
        symlink("a", at("l")).expect("linked");
        let tree = hash(root.path(), &Selection::default()).expect("hashed");
        done(root.path());
        let mut held = Held::against(Arc::new(tree));
        let mut first = None;
        walk(root.path(), &Selection::default(), &mut |entry| {
            first = first.take().or(held.entry(&entry).err());
            true
        })
        .expect("walked");
        first.or(held.end().err()).map(|difference| difference.to_string())
    }

    #[test]
    fn each_path_is_what_it_was() {
        assert_eq!(after(|_| ()), None);
        // hakobi compares bytes while it sends them.
        assert_eq!(after(|root| fs::write(root.join("a"), "other").expect("written")), None);
        let told = |done: fn(&Path)| after(done).expect("a difference");
        assert_eq!(told(|root| fs::write(root.join("n"), "").expect("written")), "n: it is new");
        assert_eq!(told(|root| fs::remove_file(root.join("dir/in/c")).expect("removed")), "dir/in/c: it was removed");
        let mode = |root: &Path| fs::set_permissions(root.join("dir/in"), PermissionsExt::from_mode(0o700)).expect("set");
        assert_eq!(told(mode), "dir/in: its mode changed");
        let link = |root: &Path| {
            fs::remove_file(root.join("l")).expect("removed");
            symlink("b", root.join("l")).expect("linked");
        };
        assert_eq!(told(link), "l: its link target changed");
        let kind = |root: &Path| {
            fs::remove_file(root.join("b")).expect("removed");
            fs::create_dir(root.join("b")).expect("made");
        };
        assert_eq!(told(kind), "b: its type changed");
        let hard = |root: &Path| {
            fs::remove_file(root.join("b")).expect("removed");
            fs::hard_link(root.join("a"), root.join("b")).expect("linked");
        };
        assert_eq!(told(hard), "b: its type changed");
    }
}
