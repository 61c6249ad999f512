//! Writes files atomically.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::redact::redacted_bytes;

/// Writes `content` to a temporary file, and renames it to `path`. If `path` is no regular file (`/dev/stdout`, a pipe), it
/// writes into it, because a rename would replace it.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let content = &*redacted_bytes(content);
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            return std::fs::OpenOptions::new().write(true).open(path)?.write_all(content);
        }
        _ => {}
    }
    // A symbolic link must stay a link, so that only its target is replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder(&target);
    // Jobs of other users read these files. The umask still applies.
    let readable = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".hakobi-").permissions(readable).tempfile_in(folder)?;
    file.write_all(content)?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

/// Returns the directory of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Checks, before any work, that these files are likely to be writable.
///
/// # Errors
/// If the directory of a file does not exist.
pub fn can_write<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    match paths.into_iter().find(|path| !folder(path).is_dir()) {
        Some(path) => Err(Error::usage(format!(
            "failed to write {}: the directory {} does not exist",
            path.display(),
            folder(path).display()
        ))),
        None => Ok(()),
    }
}

/// Returns the error for a file that is not writable.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Usage, format!("failed to write {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_links_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o044, 0o044);
    }

    #[test]
    fn devices_survive() {
        replace(Path::new("/dev/null"), b"x").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(replace(Path::new("/nonexistent/x"), b"x").is_err());
    }
}
