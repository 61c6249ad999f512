//! Paths of layers, as text.

use std::io;

use crate::domain::shown;

/// Joins a directory and a name, both without a leading `/`.
#[must_use]
pub fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Returns a path without `.` and empty parts.
///
/// # Errors
/// If it contains `..`.
pub(super) fn cleaned(path: &str) -> io::Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(io::Error::other(format!("{} points outside of the layer", shown(path))));
    }
    Ok(parts.join("/"))
}
