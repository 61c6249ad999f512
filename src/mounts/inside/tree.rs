//! The paths of a mount in little memory, and their directories, open.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::rc::Rc;

use super::place;
use super::recent::Recent;
use crate::domain::bytes_of;

/// The most directories that are open at once.
const MOST_OPEN: usize = 64;

/// Paths below a directory, by number. 0 is the directory itself. Each other path has a lower number as its parent.
pub struct Tree {
    root: Rc<File>,
    nodes: Vec<Node>,
    /// All names in the order of their numbers, spelled.
    names: String,
    open: Recent<Rc<File>>,
}

struct Node {
    parent: u32,
    /// Where the name starts in `names`. It ends where the next one starts.
    start: usize,
}

impl Tree {
    /// Returns the tree of a directory, with its root only.
    pub fn new(root: File) -> Self {
        let nodes = vec![Node { parent: 0, start: 0 }];
        Self { root: Rc::new(root), nodes, names: String::new(), open: Recent::new(MOST_OPEN) }
    }

    /// Adds a path and returns its number.
    pub fn add(&mut self, parent: u32, name: &str) -> u32 {
        let number = self.len();
        self.nodes.push(Node { parent, start: self.names.len() });
        self.names.push_str(name);
        number
    }

    /// Returns the number of the next path.
    pub fn len(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Returns the number of a path's parent.
    pub fn parent_of(&self, number: u32) -> u32 {
        self.nodes.get(index(number)).map_or(0, |node| node.parent)
    }

    /// Returns the last component of a path, spelled.
    pub fn spelled_name(&self, number: u32) -> &str {
        let start = |number: usize| self.nodes.get(number).map_or(self.names.len(), |node| node.start);
        &self.names[start(index(number))..start(index(number) + 1)]
    }

    /// Returns the bytes of the last component of a path.
    pub fn name(&self, number: u32) -> Cow<'_, [u8]> {
        bytes_of(self.spelled_name(number))
    }

    /// Returns a path, spelled.
    pub fn path(&self, number: u32) -> String {
        let mut names = Vec::new();
        let mut at = number;
        while at != 0 {
            names.push(self.spelled_name(at));
            at = self.parent_of(at);
        }
        names.reverse();
        names.join("/")
    }

    /// Returns the directory of this number, open. Follows no link on the way.
    ///
    /// # Errors
    /// If it, or a parent, is no directory any more, or cannot be opened.
    pub fn directory(&mut self, number: u32) -> io::Result<Rc<File>> {
        if let Some(open) = self.open.get(number) {
            return Ok(open.clone());
        }
        let mut missing = Vec::new();
        let mut at = number;
        let mut from = loop {
            if at == 0 {
                break self.root.clone();
            }
            if let Some(open) = self.open.get(at) {
                break open.clone();
            }
            missing.push(at);
            at = self.parent_of(at);
        };
        for number in missing.into_iter().rev() {
            from = Rc::new(place::open_directory(&*from, &self.name(number))?);
            self.open.insert(number, from.clone());
        }
        Ok(from)
    }

    /// Returns the parent of this number, open.
    ///
    /// # Errors
    /// See [`Self::directory`].
    pub fn parent(&mut self, number: u32) -> io::Result<Rc<File>> {
        self.directory(self.parent_of(number))
    }

    /// Takes a directory that the caller has opened.
    pub fn keep_open(&mut self, number: u32, directory: File) {
        self.open.insert(number, Rc::new(directory));
    }

    /// Continues with the same paths below another directory.
    pub fn move_to(&mut self, root: File) {
        self.root = Rc::new(root);
        self.open.clear();
    }
}

/// Returns a number as an index.
pub fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
