//! What an archive was found to hold, by name: small JSON as bytes, layers as what became of them.

use std::collections::HashMap;

use bytes::Bytes;

use super::error::{Error, Result};
use super::layer::StoredLayer;

/// Most bytes of names and JSON that are held in memory.
const MEMORY_LIMIT: usize = 64 << 20;

/// Most links followed one after another. Docker's lead to the layer itself.
const LINKS_LIMIT: usize = 8;

/// What an entry is.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A layer, and what became of it.
    Layer(Box<StoredLayer>),
    /// Configuration, manifest, index.
    Json(Bytes),
    /// No bytes: what moby takes for an empty layer where a layer should be.
    Empty,
    /// The same as this one.
    Link(String),
    /// Anything else, with what it is, in words.
    Other(String),
}

/// Entries by their normal names.
#[derive(Debug, Default)]
pub(super) struct Contents {
    items: HashMap<String, Item>,
    memory: usize,
}

impl Contents {
    /// Takes in an entry. One of the same name goes, as it does where archives are unpacked.
    ///
    /// # Errors
    /// If all of them are more than is held in memory.
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

    /// The entry of this name, or what it is a link to.
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

    /// The entry of this very name.
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
