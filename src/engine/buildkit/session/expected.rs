//! The files that a session must send: those that the plan depends on. The first file that differs ends its transfer, so that the
//! daemon discards the files that it received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::build_context::{Difference, Held, Selection, Tree};
use crate::domain::Digest;

/// A file that the compilation reads, with the name of its directory and its path. A file without a digest must not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedFile {
    /// The name of the local directory.
    pub directory: String,
    /// The path in that directory.
    pub path: String,
    /// The digest of the file's bytes.
    pub content: Option<Digest>,
}

/// All expected files. The session and its owner share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    trees: HashMap<(String, Selection), Arc<Tree>>,
    files: Vec<ExpectedFile>,
    moved: Option<Difference>,
}

/// The files to compare one transfer with.
#[derive(Debug, Clone)]
pub(super) enum Against {
    /// A tree: no path may be missing, and no path may be new.
    Tree(Held),
    /// Some files of a directory. hakobi does not compare the others.
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

    /// Returns the first difference. Returns `None` if there is none.
    pub(super) fn moved(&self) -> Option<Difference> {
        self.state().moved.clone()
    }

    pub(super) fn tell(&self, difference: &Difference) {
        self.state().moved.get_or_insert_with(|| difference.clone());
    }

    /// Returns the files to compare a transfer of this selection with.
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
    /// Returns whether there is anything to compare.
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

    /// Checks, after the end of the list, that no path is missing.
    pub(super) fn end(&self, was_listed: impl Fn(&str) -> bool) -> Result<(), Difference> {
        match self {
            Self::Tree(held) => held.end(),
            Self::Files(files) => match files.iter().find(|file| file.content.is_some() && !was_listed(&file.path)) {
                Some(file) => Err(Difference::at(&file.path, "it was removed")),
                None => Ok(()),
            },
        }
    }

    /// Returns the expected digest of a file. Returns `None` if it is unknown.
    pub(super) fn content(&self, path: &str) -> Option<Digest> {
        match self {
            Self::Tree(held) => held.content(path).cloned(),
            Self::Files(files) => files.iter().find(|file| file.path == path)?.content.clone(),
        }
    }
}
