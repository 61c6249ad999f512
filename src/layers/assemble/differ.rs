//! Compares a layer that the daemon made with the assembled layer.

use std::collections::BTreeMap;

use super::layer::{AssembledEntry, AssembledKind, AssembledLayer, Content, path_order};
use crate::build_context::{Node, NodeKind, Tree};
use crate::domain::{Digest, shown};

impl AssembledLayer {
    /// Returns the first difference between the daemon's layer and this one as a text, or `None` if they are the same. Times do not
    /// count. Neither do files that a store may omit ([`AssembledEntry::as_below`], [`AssembledLayer::left_out`]). `content` returns the
    /// digests of a source's files by the number of the input and the path.
    pub fn differs(&self, layer: &Tree, content: &dyn Fn(usize, &str) -> Option<Digest>) -> Option<String> {
        self.difference(layer, content).map(|what| shown(&what).into_owned())
    }

    fn difference(&self, layer: &Tree, content: &dyn Fn(usize, &str) -> Option<Digest>) -> Option<String> {
        let mut theirs: BTreeMap<String, &Node> = layer.iter().collect();
        for (path, entry) in self.entries() {
            let name = tar_name(path, &entry.kind);
            match theirs.remove(&name) {
                None if entry.as_below => {}
                None => return Some(format!("{name}: not in the daemon's layer")),
                Some(node) => {
                    if let Some(what) = self.entry_differs(entry, node, content) {
                        return Some(format!("{name}: {what}"));
                    }
                }
            }
        }
        let first = theirs.keys().min_by(|a, b| path_order(a, b));
        first.map(|path| format!("{path}: only in the daemon's layer"))
    }

    /// Returns the files and links that the daemon's layer omits. This is correct only if the state below has the same there
    /// ([`AssembledLayer::differs_at`]).
    pub fn left_out<'a>(&'a self, layer: &'a Tree) -> impl Iterator<Item = &'a str> {
        let absent = self.entries.iter().filter(|(path, entry)| entry.as_below && layer.get(path).is_none());
        absent.filter(|(_, entry)| entry.kind != AssembledKind::Directory).map(|(path, _)| &**path)
    }

    /// Returns how a node differs from this layer's path as a text. Returns `None` if it is the same, or this layer does not have
    /// the path.
    pub fn differs_at(&self, path: &str, node: &Node, content: &dyn Fn(usize, &str) -> Option<Digest>) -> Option<String> {
        self.entry_differs(self.entries.get(path)?, node, content)
    }

    fn entry_differs(
        &self,
        entry: &AssembledEntry,
        node: &Node,
        content: &dyn Fn(usize, &str) -> Option<Digest>,
    ) -> Option<String> {
        let said = |kind: &str| Some(format!("{kind} here, {} in the daemon's layer", kind_of(node)));
        match (&entry.kind, &node.kind) {
            // The metadata of a whiteout does not matter.
            (AssembledKind::Whiteout, NodeKind::File(_)) => return None,
            (AssembledKind::Whiteout, _) => return said("removed"),
            (AssembledKind::Directory, NodeKind::Directory) => {}
            (AssembledKind::Directory, _) => return said("a directory"),
            (AssembledKind::Link(ours), NodeKind::Link(theirs)) if ours == theirs => {}
            (AssembledKind::Link(ours), NodeKind::Link(theirs)) => {
                return Some(format!("its link target is {ours} here and {theirs} in the daemon's layer"));
            }
            (AssembledKind::Link(_), _) => return said("a link"),
            (AssembledKind::File(_) | AssembledKind::HardLink(_), NodeKind::File(theirs)) => {
                let Some(ours) = self.content(entry, content) else { return Some("unknown content".to_owned()) };
                if ours != *theirs {
                    return Some("the content differs".to_owned());
                }
            }
            (AssembledKind::File(_) | AssembledKind::HardLink(_), _) => return said("a file"),
        }
        if !matches!(entry.kind, AssembledKind::Link(_)) && entry.mode != node.mode {
            return Some(format!("mode {:o} here, {:o} in the daemon's layer", entry.mode, node.mode));
        }
        if entry.owner != node.owner {
            let ((user, group), (other, others)) = (entry.owner, node.owner);
            return Some(format!("owner {user}:{group} here, {other}:{others} in the daemon's layer"));
        }
        let theirs = node.xattrs.get("security.capability");
        (self.capability(entry) != theirs).then(|| "the capabilities differ".to_owned())
    }

    fn content(&self, entry: &AssembledEntry, content: &dyn Fn(usize, &str) -> Option<Digest>) -> Option<Digest> {
        match &entry.kind {
            AssembledKind::File(Content::Context { source, path, .. }) => content(*source, path),
            AssembledKind::File(Content::Bytes(bytes)) => Some(Digest::hash(bytes)),
            AssembledKind::HardLink(first) => self.content(self.entries.get(first)?, content),
            _ => None,
        }
    }

    fn capability<'a>(&'a self, entry: &'a AssembledEntry) -> Option<&'a Vec<u8>> {
        match &entry.kind {
            AssembledKind::HardLink(first) => self.entries.get(first).and_then(|first| first.capability.as_ref()),
            _ => entry.capability.as_ref(),
        }
    }
}

/// Returns the name of a path in a tar: a removed path has a whiteout's name.
pub(super) fn tar_name(path: &str, kind: &AssembledKind) -> String {
    match (kind, path.rsplit_once('/')) {
        (AssembledKind::Whiteout, Some((parent, name))) => format!("{parent}/.wh.{name}"),
        (AssembledKind::Whiteout, None) => format!(".wh.{path}"),
        _ => path.to_owned(),
    }
}

fn kind_of(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::File(_) => "a file",
        NodeKind::Directory => "a directory",
        NodeKind::Link(_) => "a link",
        NodeKind::Pipe => "a pipe",
        NodeKind::Device { .. } => "a device",
    }
}
