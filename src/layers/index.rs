//! The path index: what file operations can meet in a state, made from its layers without keeping a byte of their files.
//!
//! One index stands for one layer, under its blob and diff ID, and those of a state's layers laid over each other are the state's: so a
//! layer that many states share is looked at once.

use std::collections::BTreeMap;

use super::entry::{Kind, PathEntry};
use super::layer_index::LayerIndex;
use super::paths::joined;
use crate::domain::is_below;

/// Most links that are followed for one path, as in Linux.
const LINKS: usize = 255;

/// All paths of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathIndex {
    entries: BTreeMap<String, PathEntry>,
}

impl PathIndex {
    /// That of these layers, from the lowest up.
    #[must_use]
    pub fn from_layers<'a>(layers: impl IntoIterator<Item = &'a LayerIndex>) -> Self {
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

    /// Where a path leads, with all links on its way and at its end followed within the root, and without a leading `/`; and the
    /// links that were followed. What does not exist stands as it is (containerd `fs.RootPath`). Returns `None` if links lead to
    /// each other.
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

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
