//! The contents of an archive by name: small JSON as bytes, and layers as stored layers.

use std::collections::HashMap;

use bytes::Bytes;

use super::error::{Error, Result};
use super::layer::StoredLayer;

/// The maximum size of names and JSON in memory, in bytes.
const MEMORY_LIMIT: usize = 64 << 20;

/// The maximum number of links in a chain. Docker's links lead to the layer itself.
const LINKS_LIMIT: usize = 8;

/// The content of an entry.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A layer after it was stored.
    Layer(Box<StoredLayer>),
    /// A configuration, manifest or index.
    Json(Bytes),
    /// No bytes: moby treats such an entry as an empty layer if a layer is expected.
    Empty,
    /// A link to the entry of this name.
    Link(String),
    /// Any other content, with a description.
    Other(String),
}

/// Entries by their normal names.
#[derive(Debug, Default)]
pub(super) struct Contents {
    items: HashMap<String, Item>,
    memory: usize,
}

impl Contents {
    /// Adds an entry. It replaces an entry of the same name, as in unpacked archives.
    ///
    /// # Errors
    /// If the entries together exceed the memory limit.
    pub(super) fn add(&mut self, path: String, item: Item) -> Result<()> {
        self.memory += path.len();
        self.memory += match &item {
            Item::Json(bytes) => bytes.len(),
            Item::Link(text) | Item::Other(text) => text.len(),
            Item::Layer(_) | Item::Empty => 0,
        };
        if self.memory > MEMORY_LIMIT {
            return Err(Error::malformed(format!(
                "the archive has more than {} MiB of names, configurations and manifests",
                MEMORY_LIMIT >> 20
            )));
        }
        self.items.insert(path, item);
        Ok(())
    }

    /// Returns the entry of this name, or the target of its link. Returns `None` if there is none.
    pub(super) fn find(&self, path: &str) -> Option<&Item> {
        let mut path = path;
        for _ in 0..=LINKS_LIMIT {
            match self.items.get(path)? {
                Item::Link(to) => path = to,
                item => return Some(item),
            }
        }
        None
    }

    /// Returns the entry of exactly this name. Returns `None` if there is none.
    pub(super) fn at(&self, path: &str) -> Option<&Item> {
        self.items.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let mut contents = Contents::default();
        let link = |to: &str| Item::Link(to.to_owned());
        for (path, item) in [("a", link("b")), ("b", link("c")), ("c", Item::Empty), ("d", link("e")), ("e", link("d"))] {
            contents.add(path.to_owned(), item).expect("added");
        }
        assert!(matches!(contents.find("a"), Some(Item::Empty)));
        assert!(contents.find("d").is_none());
        assert!(contents.find("x").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut contents = Contents::default();
        let json = Bytes::from(vec![b' '; MEMORY_LIMIT / 2]);
        contents.add("a".to_owned(), Item::Json(json.clone())).expect("added");
        let error = contents.add("b".to_owned(), Item::Json(json)).expect_err("too much");
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }
}
