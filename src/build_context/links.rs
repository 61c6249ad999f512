//! Finds the paths that hakobi must send so that the daemon can follow a path through symbolic links (fsutil `FollowLinks`).

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::glob;
use crate::domain::{has_wildcards, is_below, path_of, spelled};

/// Returns the paths and the targets of their links within the root. Returns `None` if all paths are needed.
pub(super) fn follow(root: &Path, paths: &[String]) -> io::Result<Option<Vec<String>>> {
    let mut resolved = BTreeSet::new();
    for path in paths {
        append(root, path, &mut resolved)?;
    }
    Ok(dedupe(resolved))
}

fn append(root: &Path, path: &str, resolved: &mut BTreeSet<String>) -> io::Result<()> {
    // A path cannot leave the root, because it is cleaned as an absolute path.
    let cleaned = glob::clean(&format!("/{path}"));
    let mut rest = cleaned.trim_start_matches('/');
    let mut current = String::from(".");
    loop {
        let (part, behind) = rest.split_once('/').unwrap_or((rest, ""));
        current = glob::clean(&format!("{current}/{part}"));
        let targets = read_links(root, &current, true)?;
        if (behind.is_empty() || targets.is_some()) && resolved.contains(&current) {
            return Ok(());
        }
        if let Some(targets) = targets {
            resolved.insert(current);
            for target in targets {
                append(root, &format!("{target}/{behind}"), resolved)?;
            }
            return Ok(());
        }
        if behind.is_empty() {
            resolved.insert(current);
            return Ok(());
        }
        rest = behind;
    }
}

/// Returns the targets of a link, as paths from the root. Returns `None` if it is no link. The last component may have wildcards.
fn read_links(root: &Path, path: &str, wildcards: bool) -> io::Result<Option<Vec<String>>> {
    let (directory, base) = path.rsplit_once('/').unwrap_or((".", path));
    if wildcards && has_wildcards(base) {
        let entries = match std::fs::read_dir(root.join(path_of(directory))) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut out = None;
        for entry in entries {
            let name = spelled(entry?.file_name().as_bytes());
            if glob::matches(base, &name) == Some(true)
                && let Some(targets) = read_links(root, &glob::clean(&format!("{directory}/{name}")), false)?
            {
                out.get_or_insert_with(Vec::new).extend(targets);
            }
        }
        return Ok(out);
    }
    if path == "." {
        return Ok(None);
    }
    match std::fs::read_link(root.join(path_of(path))) {
        Ok(target) => {
            let target = glob::clean(&spelled(target.as_os_str().as_bytes()));
            Ok(Some(vec![if target.starts_with('/') { target } else { glob::clean(&format!("/{directory}/{target}")) }]))
        }
        // It is no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes the paths below another path of the list. Returns `None` if the list contains the root itself.
pub(super) fn dedupe(sorted: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    for path in sorted {
        if path == "." {
            return None;
        }
        let below = out.last().is_some_and(|last| is_below(&path, last));
        if !below {
            out.push(path);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_within_the_root() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path();
        std::fs::create_dir_all(path.join("real/sub")).expect("made");
        std::fs::write(path.join("real/sub/file"), "x").expect("written");
        symlink("real", path.join("link")).expect("linked");
        symlink("/real/sub", path.join("absolute")).expect("linked");
        symlink("../../../real", path.join("escape")).expect("linked");
        symlink("loop", path.join("loop")).expect("linked");
        let followed =
            |paths: &[&str]| follow(path, &paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).expect("followed");
        let list = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(followed(&["link/sub/file"]), list(&["link", "real/sub/file"]));
        assert_eq!(followed(&["absolute/file"]), list(&["absolute", "real/sub/file"]));
        assert_eq!(followed(&["escape"]), list(&["escape", "real"]));
        assert_eq!(followed(&["li*"]), list(&["li*", "real"]));
        assert_eq!(followed(&["loop"]), list(&["loop"]));
        assert_eq!(followed(&["absent/x"]), list(&["absent/x"]));
        assert_eq!(followed(&["."]), None);
        assert_eq!(followed(&["real", "real/sub"]), list(&["real"]));
    }
}
