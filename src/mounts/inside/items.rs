//! The entries of a mount that is being filled, as far as they are not complete.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::staging;
use crate::domain::shown;
use crate::mounts::entry::MountEntry;

/// What remains to be done for an entry.
pub struct Item {
    /// Set after its content.
    pub attributes: Attributes,
    /// Set after its content.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The kind.
    pub kind: ItemKind,
}

/// The kind of an item.
pub enum ItemKind {
    /// A directory, which hakobi has created.
    Directory,
    /// A file.
    File {
        /// Its size in the end.
        size: u64,
        /// The bytes that arrived.
        received: u64,
        /// Whether hakobi has created it.
        is_created: bool,
    },
    /// Another name of this file.
    HardLink(Box<str>),
    /// A complete entry.
    Complete,
}

impl Item {
    /// Returns the item of an entry.
    pub fn new(entry: &mut MountEntry, kind: ItemKind) -> Self {
        let MountEntry { mode, uid, gid, modified, .. } = *entry;
        let xattrs = std::mem::take(&mut entry.xattrs);
        let attributes = Attributes { uid, gid, mode, modified };
        Self { attributes, xattrs, kind }
    }
}

/// Splits a path into its parent and its last component, which is valid. The parent must be checked by the caller. Returns `None` if
/// the path leads out of the mount or to the directory of incomplete files.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_absolute = path.starts_with('/');
    let is_invalid = matches!(name, "" | "." | "..") || name.contains('\0') || path == staging::NAME;
    (!is_absolute && !is_invalid).then_some((parent, name))
}

/// Returns a message for an error at a path.
pub fn failed(to: &str, path: &str, error: impl std::fmt::Display) -> String {
    let path = if path.is_empty() { "the mount".into() } else { shown(path) };
    format!("failed to {to} {path}: {error}")
}
