//! The project's own Rust files as text, for the tests that hold its rules.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Rust file of the project.
pub struct File {
    /// From the project's root: `src/engine/docker.rs`.
    pub path: String,
    pub text: String,
}

impl File {
    /// The text without comments of whole lines.
    pub fn code(&self) -> String {
        self.text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

/// Every Rust file below these folders, sorted by path; folders that do not exist have none.
pub fn files(folders: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut paths);
    }
    paths.sort();
    let file = |path: PathBuf| File {
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(file).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether the code names this crate in a path: `name::…` or `use name`.
pub fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        let starts = !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':');
        let used = code[..at].ends_with("use ") || code[..at].ends_with("extern crate ");
        let absolute =
            code[..at].ends_with("::") && !code[..at - 2].ends_with(|last: char| last.is_alphanumeric() || last == '_');
        (starts && (after.starts_with("::") || (used && after.starts_with([';', ' '])))) || (absolute && after.starts_with("::"))
    })
}
