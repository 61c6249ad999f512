//! A copy's source, as BuildKit finds it in the source's snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::doubt::{AssemblyDoubt, unsure};
use super::given::{Files, Source, seconds};
use super::layer::{AssembledKind, Content};
use super::links::root_path;
use super::state::{Owner, parent};
use crate::build_context::{EntryKind, matches};
use crate::domain::{has_wildcards, is_utf8, path_of, shown};
use crate::layers::paths::joined;

/// A path of a source.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) kind: ItemKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// A copy drops fractions of a second; `None` is the time of the build.
    pub(super) modified: Modified,
    pub(super) capability: Option<Vec<u8>>,
    /// The first name of a file that has several.
    pub(super) group: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum ItemKind {
    File(Content),
    Directory,
    Link(String),
    /// A kind of file that BuildKit's versions copy in different ways.
    Special,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Modified {
    Nanoseconds(i64),
    Seconds(u64),
    Build,
}

impl Modified {
    pub(super) fn seconds(self) -> Result<Option<u64>, AssemblyDoubt> {
        match self {
            Self::Nanoseconds(nanoseconds) => seconds(nanoseconds).map(Some),
            Self::Seconds(seconds) => Ok(Some(seconds)),
            Self::Build => Ok(None),
        }
    }
}

/// All files of a source.
pub(super) struct Tree {
    items: BTreeMap<String, Item>,
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    pub(super) fn new(number: usize, source: Source<'_>) -> Result<Self, AssemblyDoubt> {
        let items = match source {
            Source::Files(files) => of_files(number, files)?,
            Source::Made(assembled) => {
                let mut items = BTreeMap::new();
                for (path, entry) in &assembled.entries {
                    let kind = match &entry.kind {
                        AssembledKind::File(Content::Bytes(bytes)) => ItemKind::File(Content::Bytes(Arc::clone(bytes))),
                        AssembledKind::Directory => ItemKind::Directory,
                        AssembledKind::Link(target) => ItemKind::Link(target.clone()),
                        _ => return unsure("it copies from a source that is not a build context"),
                    };
                    let modified = entry.modified.map_or(Modified::Build, Modified::Seconds);
                    let (mode, owner, capability) = (entry.mode, entry.owner, entry.capability.clone());
                    items.insert(path.clone(), Item { kind, mode, owner, modified, capability, group: None });
                }
                items
            }
        };
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in items.keys() {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            names.entry(above.to_owned()).or_default().insert(name.to_owned());
        }
        Ok(Self { items, names })
    }

    pub(super) fn get(&self, path: &str) -> Option<&Item> {
        self.items.get(path)
    }

    pub(super) fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.get(path).is_some_and(|item| matches!(item.kind, ItemKind::Directory))
    }

    /// Returns the names in a directory, in order.
    pub(super) fn names(&self, directory: &str) -> impl Iterator<Item = &str> {
        self.names.get(directory).into_iter().flatten().map(String::as_str)
    }

    /// Returns where a path leads. It follows a link at the end if `follow` is set (fsutil `rootPath`).
    pub(super) fn resolved(&self, path: &str, follow: bool) -> Result<String, AssemblyDoubt> {
        let link = |path: &str| match self.get(path) {
            Some(Item { kind: ItemKind::Link(target), .. }) => Some(&**target),
            _ => None,
        };
        let path = crate::build_context::clean(&format!("/{path}"));
        if follow || path == "/" {
            return root_path(&path, link);
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        Ok(joined(&root_path(directory, link)?, name))
    }

    /// Returns the paths that match a source with wildcards (fsutil `ResolveWildcards`). Returns `None` if the directory before the
    /// wildcards does not exist.
    pub(super) fn expanded(&self, source: &str, follow: bool) -> Result<Option<Vec<String>>, AssemblyDoubt> {
        let cleaned = crate::build_context::clean(source);
        let parts: Vec<&str> = cleaned.split('/').filter(|part| !part.is_empty()).collect();
        let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
        let start = format!("/{}", parts[..plain].join("/"));
        if plain == parts.len() {
            return Ok(Some(vec![start]));
        }
        let start = self.resolved(&start, follow)?;
        if !start.is_empty() && self.get(&start).is_none() {
            return Ok(None);
        }
        let pattern = parts[plain..].join("/");
        if matches(&pattern, "").is_none() {
            return unsure(format!("invalid pattern `{pattern}`"));
        }
        let mut found = Vec::new();
        // BuildKit does not walk into a link at the end of the part without wildcards.
        if self.is_directory(&start) {
            self.expand(&start, "", &pattern, &mut found);
        }
        Ok(Some(found))
    }

    fn expand(&self, start: &str, relative: &str, pattern: &str, found: &mut Vec<String>) {
        for name in self.names(&joined_opt(start, relative)) {
            let relative = joined(relative, name);
            let path = joined(start, &relative);
            if matches(pattern, &relative) == Some(true) {
                found.push(path);
            } else if self.is_directory(&path) {
                self.expand(start, &relative, pattern, found);
            }
        }
    }
}

fn joined_opt(directory: &str, below: &str) -> String {
    if below.is_empty() { directory.to_owned() } else { joined(directory, below) }
}

fn of_files(number: usize, files: Files<'_>) -> Result<BTreeMap<String, Item>, AssemblyDoubt> {
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    for entry in files.entries {
        if !is_utf8(&entry.path) || matches!(&entry.kind, EntryKind::Link(target) if !is_utf8(target)) {
            // Otherwise an assembled image could contain a file that a later cold build rejects.
            return unsure(format!("recent daemons reject the name {}, which is not UTF-8", shown(&entry.path)));
        }
        let (kind, group) = match &entry.kind {
            EntryKind::File => {
                let (path, file) = (entry.path.clone(), files.root.join(path_of(&entry.path)));
                (ItemKind::File(Content::Context { source: number, path, file, size: entry.size, plain: false }), None)
            }
            EntryKind::HardLink(first) => {
                let Some(item) = items.get_mut(first) else {
                    return unsure(format!("{} is a hard link to a file that is not sent", entry.path));
                };
                item.group = Some(first.clone());
                (item.kind.clone(), item.group.clone())
            }
            EntryKind::Directory => (ItemKind::Directory, None),
            EntryKind::Link(target) => (ItemKind::Link(target.clone()), None),
            EntryKind::Socket | EntryKind::Pipe | EntryKind::Device { .. } => (ItemKind::Special, None),
        };
        if parent(&entry.path).is_some_and(|above| !items.contains_key(above)) {
            return unsure(format!("the directory above {} is not sent", entry.path));
        }
        let has_capability = entry.xattrs.iter().any(|(name, _)| name == "security.capability");
        if has_capability && entry.kind == EntryKind::Directory {
            return unsure(format!("the directory {} has capabilities", entry.path));
        }
        let modified = Modified::Nanoseconds(entry.modified);
        // The daemon sets a file's capabilities and then its owner, which removes them (fsutil `rewriteMetadata`). They are sent
        // and hashed, but never reach a layer.
        let (mode, owner, capability) = (entry.mode, (0, 0), None);
        items.insert(entry.path.clone(), Item { kind, mode, owner, modified, capability, group });
    }
    Ok(items)
}
