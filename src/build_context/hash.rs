//! Hashes the files of a directory on all cores.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::tree::{Node, NodeKind, Tree};
use super::walk::{Entry, EntryKind, Selection, WalkError, walk};
use crate::domain::{Digest, Hasher, path_of};

/// The number of bytes that each thread reads at once.
const BUFFER: usize = 256 << 10;

/// Walks a directory as for a transfer to the daemon, and hashes the selected files. The memory use depends on the number of files,
/// not on their size.
///
/// # Errors
/// If a selected file is not readable, or changes while hakobi reads it.
pub fn hash(root: &Path, selection: &Selection) -> Result<Tree, WalkError> {
    let mut entries = Vec::new();
    walk(root, selection, &mut |entry| {
        entries.push(entry);
        true
    })?;
    let digests = contents(root, &entries)?;
    let mut tree = Tree::default();
    for entry in entries {
        let kind = match entry.kind {
            EntryKind::File => match digests.get(&entry.path) {
                Some(digest) => NodeKind::File(digest.clone()),
                None => continue,
            },
            EntryKind::HardLink(first) => match digests.get(&first) {
                Some(digest) => NodeKind::File(digest.clone()),
                None => continue,
            },
            // hakobi sends a socket as an empty file.
            EntryKind::Socket => NodeKind::File(Digest::hash(&[])),
            EntryKind::Directory => NodeKind::Directory,
            EntryKind::Link(target) => NodeKind::Link(target),
            EntryKind::Pipe => NodeKind::Pipe,
            EntryKind::Device { character, major, minor } => NodeKind::Device { character, major, minor },
        };
        let xattrs = entry.xattrs.into_iter().filter(|(name, _)| counts(name)).collect::<BTreeMap<_, _>>();
        tree.insert(&entry.path, Node { kind, mode: entry.mode, owner: (0, 0), xattrs });
    }
    Ok(tree)
}

/// Returns whether BuildKit hashes an extended attribute (`cache/contenthash/tarsum.go`).
#[must_use]
pub fn counts(xattr: &str) -> bool {
    xattr == "security.capability" || !(xattr.starts_with("security.") || xattr.starts_with("system."))
}

/// Returns the digests of all files, by path.
fn contents(root: &Path, entries: &[Entry]) -> Result<HashMap<String, Digest>, WalkError> {
    let mut files: Vec<&Entry> = entries.iter().filter(|entry| entry.kind == EntryKind::File).collect();
    // If a large file came last, one thread would read it while the others are idle.
    files.sort_by_key(|entry| std::cmp::Reverse(entry.size));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let found = Mutex::new(HashMap::with_capacity(files.len()));
    let failure = Mutex::new(None);
    let work = || {
        let (mut own, mut buffer) = (Vec::new(), vec![0; BUFFER]);
        while let Some(entry) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            match content(&root.join(path_of(&entry.path)), entry.size, &mut buffer) {
                Ok(Some(digest)) => own.push((entry.path.clone(), digest)),
                Ok(None) => stop(&failed, &failure, WalkError::Changed(entry.path.clone())),
                Err(error) => stop(&failed, &failure, WalkError::Read { path: entry.path.clone(), error }),
            }
        }
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(files.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn stop(failed: &AtomicBool, failure: &Mutex<Option<WalkError>>, error: WalkError) {
    failed.store(true, Ordering::Relaxed);
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

/// Returns the digest of a file's bytes. Returns `None` if the file no longer has this size.
fn content(path: &Path, size: u64, buffer: &mut [u8]) -> io::Result<Option<Digest>> {
    let mut file = File::open(path)?;
    let (mut hasher, mut total) = (Hasher::default(), 0);
    loop {
        let read = match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        total += read as u64;
    }
    Ok((total == size).then(|| hasher.digest()))
}
