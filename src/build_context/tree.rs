//! The files of a state, as far as content goes, and the digest of what a step selects of them.
//!
//! What belongs to a selection is BuildKit's rule (`cache/contenthash/checksum.go`: `Checksum`, `includedPaths`). The digests
//! are our own: no two selections of which a copy or a mount makes different things have the same one.

use std::collections::BTreeMap;

use super::glob;
use super::pattern::{InvalidPattern, ParentMatch, PatternMatcher};
use crate::domain::{Digest, Hasher, Selector, has_wildcards, is_below, shown};

/// Most links that are followed for one path, as in Linux.
const LINKS: usize = 255;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file with the digest of its bytes.
    File(Digest),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(String),
    /// A named pipe.
    Pipe,
    /// A device.
    Device {
        /// Whether it is a character device.
        character: bool,
        /// Major number.
        major: u64,
        /// Minor number.
        minor: u64,
    },
}

/// A path's header and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner and group: 0 in a build context.
    pub owner: (u32, u32),
    /// Extended attributes that count, by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Why a selection has no digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum NotSelected {
    /// There is no such path.
    #[error("\"{}\": not found", shown(.0))]
    Absent(String),
    /// Links that lead to each other.
    #[error("\"{}\": too many links", shown(.0))]
    Links(String),
    /// A pattern is malformed.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// Wildcards that Go does not take.
    #[error("invalid pattern `{0}`")]
    Wildcard(String),
}

/// All paths of a state.
#[derive(Debug, Clone)]
pub struct Tree {
    /// By the path's components, each behind a NUL: the order has a directory before what is in it, and that before `dir-x`.
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        // No root has a header that anyone selects: neither contexts nor layers have one.
        let root = Node { kind: NodeKind::Directory, mode: 0o755, owner: (0, 0), xattrs: BTreeMap::new() };
        Self { nodes: BTreeMap::from([(Vec::new(), root)]) }
    }
}

/// An entry that a selection holds.
struct Included<'a> {
    path: String,
    key: &'a [u8],
    node: &'a Node,
    /// Whether it counts as what it leads to: a link that is named itself, not one inside a directory.
    follows: bool,
}

/// A directory on the way to what is selected.
struct Above<'a> {
    entry: Option<Included<'a>>,
    path: String,
    include: Option<ParentMatch>,
    exclude: Option<ParentMatch>,
}

impl Tree {
    /// Puts a path, from the root, with or without a leading `/`.
    pub fn insert(&mut self, path: &str, node: Node) {
        self.nodes.insert(key(path), node);
    }

    /// What a path is; no link is followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&key(path))
    }

    /// All paths, from the root, without a leading `/`, the root itself left out.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Node)> {
        self.nodes.iter().skip(1).map(|(key, node)| (path_of(key)[1..].to_owned(), node))
    }

    /// The digest of what all these select.
    ///
    /// # Errors
    /// If one of them selects something that is not there.
    pub fn digest(&self, selectors: &[Selector]) -> Result<Digest, NotSelected> {
        let mut hasher = Hasher::default();
        for selector in selectors {
            hasher.update(self.selected(selector)?.to_string().as_bytes());
        }
        Ok(hasher.digest())
    }

    /// The paths that these select, without a leading `/`, each with the digest of its header and bytes: for an explanation.
    #[must_use]
    pub fn selected_paths(&self, selectors: &[Selector]) -> BTreeMap<String, Digest> {
        let mut out = BTreeMap::new();
        for selector in selectors {
            let path = glob::clean(&format!("/{}", selector.path));
            if !selector.is_plain() {
                let included = self.included(&path, selector).map(|(_, included)| included).unwrap_or_default();
                out.extend(included.iter().map(|entry| (entry.path[1..].to_owned(), header(entry.node))));
            } else if let Ok(Some((top, _))) = self.resolve(&path, selector.follow) {
                let below = self.nodes.range(top.to_vec()..).take_while(|(key, _)| is_at_or_below(key, top));
                let named = below.filter(|(key, _)| !key.is_empty());
                out.extend(named.map(|(key, node)| (path_of(key)[1..].to_owned(), header(node))));
            }
        }
        out
    }

    fn selected(&self, selector: &Selector) -> Result<Digest, NotSelected> {
        let path = glob::clean(&format!("/{}", selector.path));
        if selector.is_plain() {
            let (key, _) = self.resolve(&path, selector.follow)?.ok_or_else(|| NotSelected::Absent(path.clone()))?;
            return Ok(self.below(key));
        }
        let (prefix, included) = self.included(&path, selector)?;
        for required in &selector.required {
            if !included.iter().any(|entry| entry.path.starts_with(required)) {
                return Err(NotSelected::Absent(required.clone()));
            }
        }
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        // A single path is copied to the name it has in the destination, wherever it was.
        if let [only] = &included[..]
            && base(&only.path) == base(&path)
        {
            return self.content(only);
        }
        let mut hasher = Hasher::default();
        for entry in &included {
            let relative = entry.path.strip_prefix(&prefix).unwrap_or(&entry.path);
            text(&mut hasher, relative);
            hasher.update(self.content(entry)?.to_string().as_bytes());
        }
        Ok(hasher.digest())
    }

    /// Of one entry of a selection: its own header and bytes, or what it leads to where links are followed.
    fn content(&self, entry: &Included<'_>) -> Result<Digest, NotSelected> {
        if entry.follows && matches!(entry.node.kind, NodeKind::Link(_)) {
            let path = path_of(entry.key);
            let (key, _) = self.resolve(&path, true)?.ok_or(NotSelected::Absent(path))?;
            return Ok(self.below(key));
        }
        Ok(header(entry.node))
    }

    /// Which paths a selection with wildcards or patterns holds, and what their paths begin with.
    fn included<'a>(&'a self, path: &str, selector: &Selector) -> Result<(String, Vec<Included<'a>>), NotSelected> {
        let matcher = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns).map(Some),
        };
        let (include, exclude) = (matcher(&selector.include)?, matcher(&selector.exclude)?);
        let (prefix, rest) = if selector.wildcard { split_wildcards(path) } else { (path.to_owned(), String::new()) };
        let prefix = if prefix == "/" { String::new() } else { prefix };
        let start = self.resolve(if prefix.is_empty() { "/" } else { &prefix }, !rest.is_empty())?;
        let Some((start, _)) = start else { return Ok((prefix, Vec::new())) };
        let top = if path == "/" { String::new() } else { path.to_owned() };
        let mut out: Vec<Included<'a>> = Vec::new();
        let mut above: Vec<Above<'a>> = Vec::new();
        let mut matched = String::new();
        for (key, node) in self.nodes.range(start.to_vec()..).take_while(|(key, _)| is_at_or_below(key, start)) {
            // As the user called it, whatever links led there.
            let name = format!("{prefix}{}", path_of(&key[start.len()..]));
            while above.last().is_some_and(|last| !is_below(&name, &last.path)) {
                above.pop();
            }
            let below = |of: &str| {
                let name = format!("{name}/");
                name.strip_prefix(&format!("{of}/")).unwrap_or(&name).trim_end_matches('/').to_owned()
            };
            let candidate = if selector.wildcard {
                if !top.is_empty() && (matched.is_empty() || !is_below(&name, &matched)) {
                    match glob::matches(&top, &name) {
                        Some(true) => {}
                        Some(false) => continue,
                        None => return Err(NotSelected::Wildcard(top)),
                    }
                    matched.clone_from(&name);
                }
                below(&matched)
            } else {
                below(&top)
            };
            let parent = above.last();
            let (mut wanted, mut included, mut excluded) = (true, None, None);
            if let Some(include) = &include {
                let (fits, found) = include.matches_below(&candidate, parent.and_then(|above| above.include.as_ref()))?;
                (wanted, included) = (fits, Some(found));
            }
            if wanted && let Some(exclude) = &exclude {
                let (fits, found) = exclude.matches_below(&candidate, parent.and_then(|above| above.exclude.as_ref()))?;
                (wanted, excluded) = (!fits, Some(found));
            }
            let directory = node.kind == NodeKind::Directory;
            if name.is_empty() {
                continue;
            }
            let entry = Included { path: name.clone(), key, node, follows: parent.is_none() && selector.follow };
            if !directory {
                if wanted {
                    out.extend(above.iter_mut().filter_map(|above| above.entry.take()));
                    out.push(entry);
                }
                continue;
            }
            let mut entry = Some(entry);
            if wanted {
                out.extend(above.iter_mut().filter_map(|above| above.entry.take()));
                out.extend(entry.take());
            }
            above.push(Above { entry, path: name, include: included, exclude: excluded });
        }
        Ok((prefix, out))
    }

    /// A path with the links on its way followed, and at its end if asked; nothing where there is nothing.
    fn resolve(&self, path: &str, follow: bool) -> Result<Option<(&[u8], &Node)>, NotSelected> {
        let mut open: Vec<String> = path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = open.pop() {
            match &*part {
                "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let Some(node) = self.nodes.get(&joined(&at)) else { return Ok(None) };
            if let NodeKind::Link(target) = &node.kind
                && (follow || !open.is_empty())
            {
                links += 1;
                if links > LINKS {
                    return Err(NotSelected::Links(path.to_owned()));
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                open.extend(target.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned));
            }
        }
        Ok(self.nodes.get_key_value(&joined(&at)).map(|(key, node)| (&**key, node)))
    }

    /// A path and, if it is a directory, all in it.
    fn below(&self, top: &[u8]) -> Digest {
        let Some(node) = self.nodes.get(top) else { return Digest::hash(&[]) };
        if node.kind != NodeKind::Directory {
            return header(node);
        }
        let mut hasher = Hasher::default();
        for (key, node) in self.nodes.range(top.to_vec()..).take_while(|(key, _)| is_at_or_below(key, top)) {
            text(&mut hasher, &path_of(&key[top.len()..]));
            hasher.update(header(node).to_string().as_bytes());
        }
        hasher.digest()
    }
}

/// The digest of a node without its name.
fn header(node: &Node) -> Digest {
    let mut hasher = Hasher::default();
    let mut number = |number: u64| hasher.update(&number.to_be_bytes());
    number(u64::from(node.mode));
    number(u64::from(node.owner.0));
    number(u64::from(node.owner.1));
    match &node.kind {
        NodeKind::File(content) => {
            number(1);
            text(&mut hasher, &content.to_string());
        }
        NodeKind::Directory => number(2),
        NodeKind::Link(target) => {
            number(3);
            text(&mut hasher, target);
        }
        NodeKind::Pipe => number(4),
        NodeKind::Device { character, major, minor } => {
            number(if *character { 5 } else { 6 });
            number(*major);
            number(*minor);
        }
    }
    for (name, value) in &node.xattrs {
        text(&mut hasher, name);
        hasher.update(&(value.len() as u64).to_be_bytes());
        hasher.update(value);
    }
    hasher.digest()
}

fn text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

fn key(path: &str) -> Vec<u8> {
    joined(path.split('/').filter(|part| !part.is_empty()))
}

fn joined<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.push(0);
        out.extend_from_slice(part.as_ref().as_bytes());
    }
    out
}

/// With a `/` before each component.
fn path_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', "/")
}

fn is_at_or_below(key: &[u8], top: &[u8]) -> bool {
    key.strip_prefix(top).is_some_and(|rest| rest.first().is_none_or(|first| *first == 0))
}

/// The components before the first with a wildcard, and the rest.
fn split_wildcards(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
    (format!("/{}", parts[..plain].join("/")), parts[plain..].join("/"))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
