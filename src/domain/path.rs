//! Paths of a state, as texts.

/// Returns whether a path is below a directory, at any depth.
#[must_use]
pub fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}
