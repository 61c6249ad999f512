//! Walks through a mount in the order of its paths: parents first, and names in the order of their spelling's bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;

use rustix::fs::{self, AtFlags, FileType, Stat};

use super::attributes::{accessed, changed, modified, xattrs};
use super::place::{is_gone, names, open_directory, open_file};
use super::staging;
use super::tree::Tree;
use crate::domain::{Digest, bytes_of, spelled};
use crate::mounts::Summary;
use crate::mounts::entry::{ListedEntry, MountEntry, MountEntryKind};

/// The most paths of sockets and devices that a list names.
const MOST_SKIPPED: usize = 1000;

/// What a walk looks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Entries have changed if they changed after this time, by the kernel's clock. Without it, all of them have.
    pub since: Option<i64>,
    /// Whether to read extended attributes.
    pub xattrs: bool,
}

/// An entry that a walk has found.
pub struct Found {
    /// Its number in the tree.
    pub number: u32,
    /// The entry.
    pub listed: ListedEntry,
    /// The kernel's time of its last change.
    pub changed_at: i64,
}

/// The result of a walk.
pub struct Walked {
    /// All paths.
    pub tree: Tree,
    /// Paths of sockets and devices.
    pub skipped: Vec<String>,
    /// Whether there is nothing but the root.
    pub is_empty: bool,
    /// The digest of all entries.
    pub summary: Digest,
    /// The latest time of a change of content, or 0 if the mount is empty.
    pub newest: i64,
}

/// Calls `visit` with each entry. Ignores files that vanish meanwhile.
///
/// # Errors
/// If a file cannot be read, or `visit` fails.
pub fn walk(root: &File, options: Options, visit: &mut dyn FnMut(Found) -> io::Result<()>) -> io::Result<Walked> {
    let mut walk = Walk {
        tree: Tree::new(root.try_clone()?),
        options,
        links: HashMap::new(),
        skipped: Vec::new(),
        summary: Summary::default(),
        newest: i64::MIN,
        pending: Vec::new(),
        visit,
    };
    let stat = fs::fstat(root)?;
    let own = if options.xattrs { xattrs(root)? } else { BTreeMap::new() };
    // The root's time of change is not its own: BuildKit may set its owner for each step.
    walk.found(0, String::new(), MountEntryKind::Directory, &stat, own, false)?;
    let mut children = names(root)?;
    children.retain(|name| name != staging::NAME);
    walk.enter(0, String::new(), false, children);
    while let Some(directory) = walk.pending.last_mut() {
        let Some(name) = directory.names.pop() else {
            walk.pending.pop();
            continue;
        };
        let (parent, is_moved) = (directory.number, directory.is_moved);
        let path = if directory.path.is_empty() { name.clone() } else { format!("{}/{name}", directory.path) };
        match walk.entry(parent, &name, path, is_moved) {
            Err(error) if is_gone(&error) => {}
            other => other?,
        }
    }
    let is_empty = walk.tree.len() == 1 && walk.skipped.is_empty();
    let newest = if is_empty { 0 } else { walk.newest };
    Ok(Walked { tree: walk.tree, skipped: walk.skipped, is_empty, summary: walk.summary.digest(), newest })
}

struct Walk<'a> {
    tree: Tree,
    options: Options,
    /// The first path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), u32>,
    skipped: Vec<String>,
    summary: Summary,
    newest: i64,
    pending: Vec<Pending>,
    visit: &'a mut dyn FnMut(Found) -> io::Result<()>,
}

/// A directory with names that the walk has not come to.
struct Pending {
    number: u32,
    path: String,
    /// Whether it, or a parent, may have got this path after the time in question.
    is_moved: bool,
    /// The next one is the last.
    names: Vec<String>,
}

impl Walk<'_> {
    fn entry(&mut self, parent: u32, name: &str, path: String, is_moved: bool) -> io::Result<()> {
        let place = self.tree.directory(parent)?;
        let bytes = &*bytes_of(name);
        let stat = fs::statat(&*place, bytes, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut attributes = BTreeMap::new();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = open_directory(&*place, bytes)?;
                if self.options.xattrs {
                    attributes = xattrs(&directory)?;
                }
                let children = names(&directory)?;
                let number = self.tree.add(parent, name);
                self.tree.keep_open(number, directory);
                self.found(number, path.clone(), MountEntryKind::Directory, &stat, attributes, is_moved)?;
                // Moving a directory changes nothing below it. But it is the only usual change of a directory that leaves its time of
                // change of content.
                let is_moved = is_moved || (self.is_changed(&stat) && changed(&stat) != modified(&stat));
                self.enter(number, path, is_moved, children);
                return Ok(());
            }
            FileType::RegularFile => {
                let inode = (stat.st_dev, stat.st_ino);
                match self.links.get(&inode).filter(|_| stat.st_nlink > 1) {
                    Some(first) => MountEntryKind::HardLink { of: self.tree.path(*first) },
                    None => {
                        if self.options.xattrs {
                            attributes = file_xattrs(&place, bytes)?;
                        }
                        if stat.st_nlink > 1 {
                            self.links.insert(inode, self.tree.len());
                        }
                        MountEntryKind::File { size: u64::try_from(stat.st_size).unwrap_or(0) }
                    }
                }
            }
            FileType::Symlink => MountEntryKind::Link { target: spelled(fs::readlinkat(&*place, bytes, Vec::new())?.as_bytes()) },
            FileType::Fifo => MountEntryKind::Pipe,
            _ => {
                if self.skipped.len() < MOST_SKIPPED {
                    self.skipped.push(path);
                }
                return Ok(());
            }
        };
        let number = self.tree.add(parent, name);
        self.found(number, path, kind, &stat, attributes, is_moved)
    }

    fn enter(&mut self, number: u32, path: String, is_moved: bool, mut names: Vec<String>) {
        names.sort_unstable_by(|one, other| other.cmp(one));
        self.pending.push(Pending { number, path, is_moved, names });
    }

    fn found(
        &mut self,
        number: u32,
        path: String,
        kind: MountEntryKind,
        stat: &Stat,
        xattrs: BTreeMap<String, Vec<u8>>,
        is_moved: bool,
    ) -> io::Result<()> {
        let (modified, changed_at) = (modified(stat), changed(stat));
        let entry = MountEntry { path, kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, modified, xattrs };
        self.summary.add(&entry);
        self.newest = self.newest.max(modified);
        let is_changed = is_moved || self.is_changed(stat);
        // hakobi sets the time of access to that of change. A read moves it on, even if the time of change is in the future.
        let accessed = accessed(stat);
        let is_read = accessed > modified || self.options.since.is_some_and(|since| accessed > since);
        let listed = ListedEntry { entry, changed: is_changed, used: is_changed || is_read };
        (self.visit)(Found { number, listed, changed_at })
    }

    fn is_changed(&self, stat: &Stat) -> bool {
        self.options.since.is_none_or(|since| changed(stat) > since)
    }
}

/// Returns the attributes of a regular file. Without root's rights, those of a file that hakobi cannot read are none.
fn file_xattrs(parent: &File, name: &[u8]) -> io::Result<BTreeMap<String, Vec<u8>>> {
    match open_file(parent, name) {
        Err(rustix::io::Errno::ACCESS) => Ok(BTreeMap::new()),
        opened => xattrs(&opened?),
    }
}
