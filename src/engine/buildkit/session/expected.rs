//! What a session is to send: the files that the plan was made of. The first that differs ends its transfer, so that the daemon throws
//! away what it has of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::build_context::{Difference, Held, Selection, Tree};
use crate::domain::Digest;

/// A file that is read to compile, by the name of its directory and its own. Nothing is to be there where it has no digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedFile {
    /// The name of the local directory.
    pub directory: String,
    /// Its path in that.
    pub path: String,
    /// The digest of its bytes.
    pub content: Option<Digest>,
}

/// All of it, as the session and its owner share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    trees: HashMap<(String, Selection), Arc<Tree>>,
    files: Vec<ExpectedFile>,
    moved: Option<Difference>,
}

/// What one transfer is held against.
#[derive(Debug, Clone)]
pub(super) enum Against {
    /// A tree: no path may be missing, and none may be new.
    Tree(Held),
    /// Some files of a directory; others are as they come.
    Files(Vec<ExpectedFile>),
}

impl Expected {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect_trees(&self, trees: impl IntoIterator<Item = ((String, Selection), Arc<Tree>)>) {
        self.state().trees.extend(trees);
    }

    pub(super) fn expect_files(&self, files: &[ExpectedFile]) {
        self.state().files.extend_from_slice(files);
    }

    pub(super) fn expect_nothing(&self) {
        let mut state = self.state();
        state.trees.clear();
        state.files.clear();
    }

    /// The first difference that was found.
    pub(super) fn moved(&self) -> Option<Difference> {
        self.state().moved.clone()
    }

    pub(super) fn tell(&self, difference: &Difference) {
        self.state().moved.get_or_insert_with(|| difference.clone());
    }

    /// What a transfer of this selection is held against.
    pub(super) fn of(&self, name: &str, selection: &Selection) -> Against {
        let state = self.state();
        if let Some(tree) = state.trees.get(&(name.to_owned(), selection.clone())) {
            return Against::Tree(Held::against(Arc::clone(tree)));
        }
        let asked = |file: &&ExpectedFile| file.directory == name && selection.include.contains(&file.path);
        Against::Files(state.files.iter().filter(asked).cloned().collect())
    }
}

impl Against {
    /// Whether anything is compared.
    pub(super) fn is_anything(&self) -> bool {
        !matches!(self, Self::Files(files) if files.is_empty())
    }

    pub(super) fn entry(&mut self, entry: &crate::build_context::Entry) -> Result<(), Difference> {
        match self {
            Self::Tree(held) => held.entry(entry),
            Self::Files(files) => match files.iter_mut().find(|file| file.path == entry.path) {
                Some(ExpectedFile { content: None, .. }) => Err(Difference::at(&entry.path, "it is new")),
                _ => Ok(()),
            },
        }
    }

    /// Says that all paths were listed.
    pub(super) fn end(&self, was_listed: impl Fn(&str) -> bool) -> Result<(), Difference> {
        match self {
            Self::Tree(held) => held.end(),
            Self::Files(files) => match files.iter().find(|file| file.content.is_some() && !was_listed(&file.path)) {
                Some(file) => Err(Difference::at(&file.path, "it was removed")),
                None => Ok(()),
            },
        }
    }

    /// The digest that a file is to have, where it is known.
    pub(super) fn content(&self, path: &str) -> Option<Digest> {
        match self {
            Self::Tree(held) => held.content(path).cloned(),
            Self::Files(files) => files.iter().find(|file| file.path == path)?.content.clone(),
        }
    }
}
