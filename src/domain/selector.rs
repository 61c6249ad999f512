//! What a step takes out of a state that it does not build on.

use serde::{Deserialize, Serialize};

/// One selection: what a `COPY` argument names, or what a mount shows (BuildKit `opsutils.Selector`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Selector {
    /// From the root of the state, with a leading `/`; may have wildcards.
    pub path: String,
    /// Whether it has wildcards that count as such.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wildcard: bool,
    /// Whether a link at its end is followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Of what lies below it, only what matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Of what lies below it, nothing that matches these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// What must be there (`COPY --parents`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
}

impl Selector {
    /// Everything there is.
    #[must_use]
    pub fn everything() -> Self {
        Self { path: "/".to_owned(), follow: true, ..Self::default() }
    }

    /// A path and all below it.
    #[must_use]
    pub fn new(path: &str, follow: bool) -> Self {
        Self { path: path.to_owned(), follow, ..Self::default() }
    }

    /// Whether it takes a path as it stands.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.wildcard && self.include.is_empty() && self.exclude.is_empty()
    }
}

/// Whether the text has wildcards that are not escaped.
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
