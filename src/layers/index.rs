//! The path index: the paths of a state that file operations can touch. It is made from layers without storing their files.
//!
//! Each layer has one index, under its blob and diff ID. A state's index combines the indexes of its layers, so hakobi reads a
//! layer of many states only once.

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
    /// Combines the indexes of these layers, from the lowest up.
    #[must_use]
    pub fn from_layers<'a>(layers: impl IntoIterator<Item = &'a LayerIndex>) -> Self {
        let mut index = Self::default();
        layers.into_iter().for_each(|layer| index.apply(layer));
        index
    }

    /// Adds a layer on top.
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
                // The daemon's store decides whether the directory keeps the metadata from below.
                Some(lower) if met.implied && lower.kind == Kind::Directory => {
                    let implied = (lower.mode, lower.owner) != (met.mode, met.owner);
                    PathEntry { implied: implied || lower.implied, ..lower.clone() }
                }
                Some(lower) if lower.kind == Kind::Directory && met.kind != Kind::Directory => {
                    self.remove(path);
                    met.clone()
                }
                // No layer below has this path, so the daemon's stores agree on the metadata of the implied directory.
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

    /// Returns the entry of a path from the root, with or without a leading `/`. It follows no link. Returns `None` for a missing
    /// path and for the root.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&PathEntry> {
        self.entries.get(path.trim_start_matches('/'))
    }

    /// Returns all paths below a directory, without a leading `/`; all paths for the root.
    pub fn below(&self, directory: &str) -> impl Iterator<Item = (&str, &PathEntry)> {
        let directory = directory.trim_matches('/').to_owned();
        let start = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let range = self.entries.range(start..).map(|(path, met)| (&**path, met));
        range.take_while(move |(path, _)| directory.is_empty() || is_below(path, &directory))
    }

    /// Returns where a path leads, with all links followed within the root, and without a leading `/`; and the followed links.
    /// Missing components stay as they are (containerd `fs.RootPath`). Returns `None` if there are too many links, as in a circle.
    #[must_use]
    pub fn walk(&self, path: &str) -> Option<(String, Vec<String>)> {
        follow(path, |path| match self.entries.get(path) {
            Some(PathEntry { kind: Kind::Link(target), .. }) => Some(target),
            _ => None,
        })
    }
}

/// Returns where a path leads, and the followed links. `link` returns their targets. Returns `None` if there are too many links, as
/// in a circle.
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
