//! Selects the files that a step copies out of a state that it does not build on.

use serde::{Deserialize, Serialize};

/// One selection: the argument of a `COPY`, or the source of a mount (BuildKit `opsutils.Selector`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Selector {
    /// The path from the root of the state, with a leading `/`; may have wildcards.
    pub path: String,
    /// Whether wildcards in the path are expanded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wildcard: bool,
    /// Whether a link at its end is followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Patterns: of the paths below, only those that match one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns: of the paths below, none that match one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Paths that must exist (`COPY --parents`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
}

impl Selector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { path: "/".to_owned(), follow: true, ..Self::default() }
    }

    /// Selects a path and everything below it.
    #[must_use]
    pub fn new(path: &str, follow: bool) -> Self {
        Self { path: path.to_owned(), follow, ..Self::default() }
    }

    /// Returns whether it selects a path without wildcards and patterns.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.wildcard && self.include.is_empty() && self.exclude.is_empty()
    }
}

/// Returns whether the text has wildcards that are not escaped.
#[must_use]
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
