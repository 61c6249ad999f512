//! The files of a state with their content, and the digest of the files that a step selects.
//!
//! BuildKit's rule decides which files belong to a selection (`cache/contenthash/checksum.go`: `Checksum`, `includedPaths`). The
//! digests are hakobi's own: if a copy or a mount makes different files of two selections, the digests differ too.

use std::collections::BTreeMap;

use super::glob;
use super::pattern::{InvalidPattern, ParentMatch, PatternMatcher};
use crate::domain::{Digest, Hasher, Selector, has_wildcards, is_below, shown};

/// The maximum number of links to follow for one path, as in Linux.
const LINKS: usize = 255;

/// The kind of a path.
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
    /// The kind.
    pub kind: NodeKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner and group: 0 in a build context.
    pub owner: (u32, u32),
    /// The relevant extended attributes, by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The reason why a selection has no digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum NotSelected {
    /// The path does not exist.
    #[error("\"{}\": not found", shown(.0))]
    Absent(String),
    /// The links form a loop, or there are too many.
    #[error("\"{}\": too many links", shown(.0))]
    Links(String),
    /// A pattern is malformed.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// Go rejects the wildcards.
    #[error("invalid pattern `{0}`")]
    Wildcard(String),
}

/// All paths of a state.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The nodes by the path's components, each after a NUL. In this order a directory comes before its entries, and these before
    /// `dir-x`.
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        // No selection sees the root's header: neither contexts nor layers have one.
        let root = Node { kind: NodeKind::Directory, mode: 0o755, owner: (0, 0), xattrs: BTreeMap::new() };
        Self { nodes: BTreeMap::from([(Vec::new(), root)]) }
    }
}

/// An entry of a selection.
struct Included<'a> {
    path: String,
    key: &'a [u8],
    node: &'a Node,
    /// Whether the entry counts as its target: a link that the selection names, not one inside a directory.
    follows: bool,
}

/// A directory above the selected entries.
struct Above<'a> {
    entry: Option<Included<'a>>,
    path: String,
    include: Option<ParentMatch>,
    exclude: Option<ParentMatch>,
}

impl Tree {
    /// Adds a path, from the root, with or without a leading `/`.
    pub fn insert(&mut self, path: &str, node: Node) {
        self.nodes.insert(key(path), node);
    }

    /// Returns the node of a path, without following links. Returns `None` if it does not exist.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&key(path))
    }

    /// Returns all paths from the root, without a leading `/`, and without the root itself.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Node)> {
        self.nodes.iter().skip(1).map(|(key, node)| (path_of(key)[1..].to_owned(), node))
    }

    /// Returns the digest of the files that all these selectors select.
    ///
    /// # Errors
    /// If a selector selects a missing path.
    pub fn digest(&self, selectors: &[Selector]) -> Result<Digest, NotSelected> {
        let mut hasher = Hasher::default();
        for selector in selectors {
            hasher.update(self.selected(selector)?.to_string().as_bytes());
        }
        Ok(hasher.digest())
    }

    /// Returns the selected paths, without a leading `/`, each with the digest of its header and bytes, for an explanation.
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
        // A single path gets its name from the destination, wherever it was.
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

    /// Returns the digest of an entry's own header and bytes, or of the link's target if the selection follows links.
    fn content(&self, entry: &Included<'_>) -> Result<Digest, NotSelected> {
        if entry.follows && matches!(entry.node.kind, NodeKind::Link(_)) {
            let path = path_of(entry.key);
            let (key, _) = self.resolve(&path, true)?.ok_or(NotSelected::Absent(path))?;
            return Ok(self.below(key));
        }
        Ok(header(entry.node))
    }

    /// Returns the paths of a selection with wildcards or patterns, and the prefix of these paths.
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
            // The name is the user's own, without the links that were followed.
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

    /// Follows the links in a path, and at its end on request. Returns `None` if the path does not exist.
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

    /// Returns the digest of a path and, if it is a directory, of all its entries.
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

/// Returns the digest of a node without its name.
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

/// Returns the path with a `/` before each component.
fn path_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', "/")
}

fn is_at_or_below(key: &[u8], top: &[u8]) -> bool {
    key.strip_prefix(top).is_some_and(|rest| rest.first().is_none_or(|first| *first == 0))
}

/// Returns the components before the first wildcard, and the rest.
fn split_wildcards(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
    (format!("/{}", parts[..plain].join("/")), parts[plain..].join("/"))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
