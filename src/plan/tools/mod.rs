//! The tools whose caches hakobi knows: their commands, the files that they read, and where their caches are.
//!
//! `table` is the data, `command` finds calls in a command's text. Advice and `--auto-mounts` both rest on these.

mod command;
mod table;

use std::collections::BTreeMap;

pub(super) use command::{Call, Commands, call, parts, simple_commands, text_of};
pub(super) use table::TOOLS;

/// A tool with caches.
#[derive(Debug, PartialEq)]
pub(super) struct Tool {
    pub(super) programs: &'static [&'static str],
    /// First arguments that install a project's dependencies. An empty one stands for no argument.
    pub(super) installs: &'static [&'static str],
    /// First arguments that download or compile too, but need the sources.
    pub(super) builds: &'static [&'static str],
    /// The project's files that it reads to install.
    pub(super) manifests: &'static [&'static str],
    /// Whether it installs without reading a file of the project.
    pub(super) of_system: bool,
    /// Options and variables that disable its cache.
    pub(super) keeps_none: &'static [&'static str],
    /// Words with which it empties a cache, moves it, or relies on what is there. Also the beginnings of such words before `:` and `=`,
    /// and variables.
    pub(super) relies: &'static [&'static str],
    /// Variables that make other programs call it: `CC=ccache gcc`.
    pub(super) wrappers: &'static [&'static str],
    pub(super) caches: &'static [Cache],
    /// The directory that it compiles into, if a mount there would save work.
    pub(super) output: Option<Output>,
}

/// A cache of a tool.
#[derive(Debug, PartialEq)]
pub(super) struct Cache {
    /// Variables that set its directory, with the path below it.
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// Its directory without these. `~` stands for the home of root. Empty if it is not known.
    pub(super) folder: &'static str,
    pub(super) used: Used,
    /// Whether calls that only install leave it alone.
    pub(super) of_builds: bool,
    /// Whether only one command may use it at a time.
    pub(super) locked: bool,
    /// A file of base images that makes the cache useless.
    pub(super) unless: Option<&'static str>,
    pub(super) automatic: Automatic,
    /// Whether only `--auto-mounts` mounts it, because it is a part of another cache.
    pub(super) only_automatic: bool,
}

/// Whether `--auto-mounts` mounts a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Automatic {
    Always,
    /// Only if each call sees this variable with this value, and none begins with this word.
    If {
        variable: (&'static str, &'static str),
        not: &'static str,
    },
    /// The reason why its results may depend on more than the tool checks.
    Never(&'static str),
}

/// Who reads a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Used {
    /// Only the tool, which downloads or compiles again what is missing.
    ByTool,
    /// Also what the tool has made: a later command needs the directory too.
    InPlace,
}

/// A directory that a tool compiles into, and that it can continue from.
#[derive(Debug, PartialEq)]
pub(super) struct Output {
    pub(super) variable: &'static str,
    /// The directory without the variable, below the command's own.
    pub(super) folder: &'static str,
}

/// The variables that a command sees.
pub(super) type Variables = BTreeMap<String, String>;

impl Cache {
    /// Returns its directory, from the command's variables and its user. Returns `None` if it is not known.
    pub(super) fn folder(&self, env: &Variables, user: &str) -> Option<String> {
        let set = |(name, below): &(&str, &str)| Some(format!("{}{below}", env.get(*name)?.trim_end_matches('/')));
        if let Some(folder) = self.variables.iter().find_map(set) {
            return Some(folder).filter(|folder| folder.starts_with('/'));
        }
        if !is_root(user) || self.folder.is_empty() {
            return None;
        }
        let home = env.get("HOME").map_or("/root", |home| home.trim_end_matches('/'));
        let folder = self.folder.strip_prefix('~').map_or_else(|| self.folder.to_owned(), |below| format!("{home}{below}"));
        Some(folder).filter(|folder| folder.starts_with('/'))
    }

    /// Returns its options for `RUN --mount=type=cache`, with a comma before each.
    pub(super) fn options(&self) -> &'static str {
        if self.locked { ",sharing=locked" } else { "" }
    }
}

impl Tool {
    /// Returns whether the variables make other programs call it.
    pub(super) fn wraps(&self, env: &Variables) -> bool {
        let names_it = |value: &String| {
            value.split_whitespace().any(|word| self.programs.contains(&word.rsplit('/').next().unwrap_or_default()))
        };
        self.wrappers.iter().filter_map(|name| env.get(*name)).any(names_it)
    }
}

/// Returns whether a user of a Dockerfile is root.
pub(super) fn is_root(user: &str) -> bool {
    matches!(user, "" | "0" | "root" | "0:0" | "root:root")
}
