//! Paths of a state, as texts.

/// Whether a path lies below a directory, at whatever depth.
#[must_use]
pub fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}
