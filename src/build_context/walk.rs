//! Walks a directory with the filter of BuildKit's client (fsutil `filterFS.Walk`). The order is the one that its receiver
//! requires, and the parents of selected entries are included.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::links;
use super::pattern::{InvalidPattern, ParentMatch, PatternMatcher};
use super::tree::{Node, NodeKind};
use crate::domain::{path_of, shown, spelled};

/// The requested part of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// A path must match one of these. If there are none, all paths match.
    pub include: Vec<String>,
    /// A path must not match these.
    pub exclude: Vec<String>,
    /// Paths that are included together with the targets of their links.
    pub follow: Vec<String>,
}

/// A file, directory or link of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path from the context's root, with `/`, as [`spelled`].
    pub path: String,
    /// The kind.
    pub kind: EntryKind,
    /// Permission, setuid, setgid and sticky bits, as in `chmod`.
    pub mode: u32,
    /// The size in bytes. It is 0 for all entries except files.
    pub size: u64,
    /// The time of the last change of content, in nanoseconds since 1970.
    pub modified: i64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Creates the entry of a tree's path. A tree does not contain size, time and hard links.
    #[must_use]
    pub fn new(path: String, node: &Node) -> Self {
        let kind = match &node.kind {
            NodeKind::File(_) => EntryKind::File,
            NodeKind::Directory => EntryKind::Directory,
            NodeKind::Link(target) => EntryKind::Link(target.clone()),
            NodeKind::Pipe => EntryKind::Pipe,
            NodeKind::Device { character, major, minor } => {
                EntryKind::Device { character: *character, major: *major, minor: *minor }
            }
        };
        let xattrs = node.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { path, kind, mode: node.mode, size: 0, modified: 0, xattrs }
    }
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A regular file that is the same as an earlier one.
    HardLink(String),
    /// A directory.
    Directory,
    /// A symbolic link and its unchanged target.
    Link(String),
    /// A socket. BuildKit's client sends it as an empty file.
    Socket,
    /// A named pipe.
    Pipe,
    /// A device with major and minor number.
    Device {
        /// Whether it is a character device.
        character: bool,
        /// Major number.
        major: u64,
        /// Minor number.
        minor: u64,
    },
}

/// The reason why a walk ended early.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A path is not readable.
    #[error("failed to read {} in the build context: {error}", shown(path))]
    Read {
        /// The path.
        path: String,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// A file changed each time hakobi read it.
    #[error("{} changed while hakobi read it: another process writes into the build context", shown(.0))]
    Changed(String),
    /// A pattern is malformed.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// The receiver went away.
    #[error("the walk was cancelled")]
    Stopped,
}

/// Walks `root` and passes the selected entries to `each`. Ends the walk if `each` returns `false`.
///
/// # Errors
/// If a selected entry is not readable, or a pattern is malformed.
pub fn walk(root: &Path, selection: &Selection, each: &mut dyn FnMut(Entry) -> bool) -> Result<(), WalkError> {
    let mut include = selection.include.clone();
    if !selection.follow.is_empty() {
        let followed = links::follow(root, &selection.follow)
            .map_err(|error| WalkError::Read { path: selection.follow.join(", "), error })?;
        // `None` means that a link leads to the root itself: then there is no filter (fsutil `dedupePaths`).
        include = followed.and_then(|followed| links::dedupe(include.into_iter().chain(followed))).unwrap_or_default();
    }
    let include = PatternMatcher::new(&include)?;
    let exclude = PatternMatcher::new(&selection.exclude)?;
    let mut walker = Walker {
        root: root.to_owned(),
        only_prefix_includes: only_prefixes(&include, false),
        only_prefix_exceptions: only_prefixes(&exclude, true),
        include: Some(include).filter(|matcher| !matcher.is_empty()),
        exclude: Some(exclude).filter(|matcher| !matcher.is_empty()),
        seen: HashMap::new(),
        waiting: Vec::new(),
        each,
    };
    walker.directory("", None, None)
}

struct Walker<'a> {
    root: PathBuf,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    only_prefix_includes: bool,
    only_prefix_exceptions: bool,
    /// The files with several names that were passed on, by device and inode.
    seen: HashMap<(u64, u64), String>,
    /// Directories that are not selected themselves. They are passed on when an entry below them is selected.
    waiting: Vec<Entry>,
    each: &'a mut dyn FnMut(Entry) -> bool,
}

impl Walker<'_> {
    fn directory(&mut self, path: &str, included: Option<&ParentMatch>, excluded: Option<&ParentMatch>) -> Result<(), WalkError> {
        let read = |error| WalkError::Read { path: if path.is_empty() { ".".to_owned() } else { path.to_owned() }, error };
        let mut names = Vec::new();
        let entries = match fs::read_dir(self.root.join(path_of(path))) {
            // It was removed after its parent directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => return Ok(()),
            entries => entries.map_err(read)?,
        };
        for entry in entries {
            names.push(entry.map_err(read)?.file_name());
        }
        names.sort();
        for name in names {
            let name = spelled(name.as_bytes());
            let child = if path.is_empty() { name } else { format!("{path}/{name}") };
            self.entry(child, included, excluded)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: String, included: Option<&ParentMatch>, excluded: Option<&ParentMatch>) -> Result<(), WalkError> {
        let full = self.root.join(path_of(&path));
        let read = |error| WalkError::Read { path: path.clone(), error };
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // It was removed after its directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read(error)),
        };
        let directory = metadata.is_dir();
        let mut skip = false;
        let mut include_info = None;
        if let Some(matcher) = &self.include {
            let (matched, info) = matcher.matches_below(&path, included)?;
            if !matched {
                if directory && self.only_prefix_includes && !may_lie_below(matcher, false, &path) {
                    return Ok(());
                }
                skip = true;
            }
            include_info = Some(info);
        }
        let mut exclude_info = None;
        if let Some(matcher) = &self.exclude {
            let (matched, info) = matcher.matches_below(&path, excluded)?;
            if matched {
                if directory && self.only_prefix_exceptions && !may_lie_below(matcher, true, &path) {
                    return Ok(());
                }
                skip = true;
            }
            exclude_info = Some(info);
        }
        if !directory {
            if !skip {
                match self.describe(path.clone(), &full, &metadata) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    entry => self.hand_over(entry.map_err(read)?)?,
                }
            }
            return Ok(());
        }
        let depth = self.waiting.len();
        let entry = match self.describe(path.clone(), &full, &metadata) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entry => entry.map_err(read)?,
        };
        if skip {
            self.waiting.push(entry);
        } else {
            self.hand_over(entry)?;
        }
        let result = self.directory(&path, include_info.as_ref(), exclude_info.as_ref());
        self.waiting.truncate(depth.min(self.waiting.len()));
        match result {
            // A directory that is neither selected nor readable is ignored.
            Err(WalkError::Read { path: failed, error })
                if skip && failed == path && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn hand_over(&mut self, entry: Entry) -> Result<(), WalkError> {
        for parent in std::mem::take(&mut self.waiting) {
            if !(self.each)(parent) {
                return Err(WalkError::Stopped);
            }
        }
        if (self.each)(entry) { Ok(()) } else { Err(WalkError::Stopped) }
    }

    fn describe(&mut self, path: String, full: &Path, metadata: &Metadata) -> io::Result<Entry> {
        let kind = metadata.file_type();
        let mut size = 0;
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if kind.is_symlink() {
            EntryKind::Link(spelled(&fs::read_link(full)?.into_os_string().into_vec()))
        } else if kind.is_fifo() {
            EntryKind::Pipe
        } else if kind.is_socket() {
            EntryKind::Socket
        } else if kind.is_block_device() || kind.is_char_device() {
            let device = metadata.rdev();
            // The numbers are split as in fsutil (`major`, `minor`).
            EntryKind::Device {
                character: kind.is_char_device(),
                major: (device >> 8) & 0xfff,
                minor: (device & 0xff) | ((device >> 12) & 0xf_ff00),
            }
        } else {
            size = metadata.len();
            match self.seen.get(&(metadata.dev(), metadata.ino())) {
                Some(first) if metadata.nlink() > 1 => {
                    size = 0;
                    EntryKind::HardLink(first.clone())
                }
                _ => {
                    if metadata.nlink() > 1 {
                        self.seen.insert((metadata.dev(), metadata.ino()), path.clone());
                    }
                    EntryKind::File
                }
            }
        };
        Ok(Entry {
            path,
            kind,
            mode: metadata.mode() & 0o7777,
            size,
            modified: metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec()),
            xattrs: xattrs(full)?,
        })
    }
}

/// Returns the extended attributes. The list is empty if the file system does not support them.
fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut out = Vec::new();
    for name in names {
        if let Ok(Some(value)) = xattr::get(path, &name) {
            out.push((spelled(name.as_bytes()), value));
        }
    }
    Ok(out)
}

/// Returns whether all patterns begin with plain text, so that the walk can skip a directory by its name.
fn only_prefixes(matcher: &PatternMatcher, exclusion: bool) -> bool {
    matcher.texts(exclusion).all(|text| !without_trailing_glob(text).contains(['*', '[', ']', '?', '^', '\\']))
}

fn may_lie_below(matcher: &PatternMatcher, exclusion: bool, directory: &str) -> bool {
    matcher.texts(exclusion).any(|text| {
        let text = without_trailing_glob(text);
        text == directory || text.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
    })
}

fn without_trailing_glob(text: &str) -> &str {
    let text = text.strip_suffix("/**").unwrap_or(text);
    text.strip_suffix("/*").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, file).expect("written");
        }
        root
    }

    fn list(root: &Path, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let selection = Selection { include: owned(include), exclude: owned(exclude), follow: Vec::new() };
        let mut out = Vec::new();
        walk(root, &selection, &mut |entry| {
            out.push(entry.path);
            true
        })
        .expect("walked");
        out
    }

    #[test]
    fn the_order_is_the_receivers() {
        let root = tree(&["a/b", "a-b", "a.c", "ab"]);
        assert_eq!(list(root.path(), &[], &[]), ["a", "a/b", "a-b", "a.c", "ab"]);
    }

    #[test]
    fn parents_of_what_is_selected_come_along_and_others_do_not() {
        let root = tree(&["x/y/keep", "x/z/other", "w/file"]);
        assert_eq!(list(root.path(), &["x/y/keep"], &[]), ["x", "x/y", "x/y/keep"]);
        assert_eq!(list(root.path(), &["**/other"], &[]), ["x", "x/z", "x/z/other"]);
        assert_eq!(list(root.path(), &[], &["*", "!x/z"]), ["x", "x/z", "x/z/other"]);
        assert_eq!(list(root.path(), &[], &["x/y", "w"]), ["x", "x/z", "x/z/other"]);
        assert_eq!(list(root.path(), &[], &["**", "!**/keep"]), ["x", "x/y", "x/y/keep"]);
    }

    #[test]
    fn hard_links_point_to_the_first_selected_name() {
        let root = tree(&["a", "d"]);
        fs::hard_link(root.path().join("a"), root.path().join("b")).expect("linked");
        fs::hard_link(root.path().join("a"), root.path().join("c")).expect("linked");
        let mut kinds = Vec::new();
        let selection = Selection { exclude: vec!["a".to_owned()], ..Selection::default() };
        walk(root.path(), &selection, &mut |entry| {
            kinds.push((entry.path, entry.kind));
            true
        })
        .expect("walked");
        assert_eq!(
            kinds,
            [
                ("b".to_owned(), EntryKind::File),
                ("c".to_owned(), EntryKind::HardLink("b".to_owned())),
                ("d".to_owned(), EntryKind::File)
            ]
        );
    }

    #[test]
    fn a_broken_link_is_an_entry_like_any_other() {
        let root = tree(&["a"]);
        std::os::unix::fs::symlink("nowhere", root.path().join("broken")).expect("linked");
        assert_eq!(list(root.path(), &[], &[]), ["a", "broken"]);
    }
}
