//! Lists a mount, and sends files of the list.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self, FileType, SeekFrom, Stat};
use rustix::io::Errno;

use super::attributes::{changed, modified};
use super::tree::{Tree, index};
use super::walk::{self, Found};
use super::{clock, place};
use crate::mounts::entry::{ListedEntry, MountEntryKind};
use crate::mounts::frame::{encode, encode_start};
use crate::mounts::protocol::{LARGEST_MESSAGE, LARGEST_PAYLOAD, MOST_ENTRIES, Reply};

/// What is left of a list, to send its files.
pub struct Listing {
    tree: Tree,
    /// The state of each regular file.
    files: Vec<Option<State>>,
    buffer: Vec<u8>,
}

/// The state of a file, by which hakobi sees that it changed.
#[derive(PartialEq, Eq)]
struct State {
    size: u64,
    modified: i64,
    changed: i64,
}

/// Writes the list of a mount.
///
/// # Errors
/// If a file cannot be read, or `output` fails.
pub fn list(root: &File, mount: usize, since: Option<i64>, output: &mut impl Write) -> io::Result<Listing> {
    let at = clock::before(root)?;
    // If the clock was set back, changes may have any time.
    let since = since.filter(|since| *since <= at);
    let mut files = Vec::new();
    let mut batch = Batch { mount, entries: Vec::new(), size: 0 };
    let walked = walk::walk(root, walk::Options { since, xattrs: true }, &mut |Found { number, listed, changed_at }| {
        files.resize_with(index(number), || None);
        files.push(match listed.entry.kind {
            MountEntryKind::File { size } => Some(State { size, modified: listed.entry.modified, changed: changed_at }),
            _ => None,
        });
        batch.add(listed, output)
    })?;
    batch.send(output)?;
    let walk::Walked { tree, skipped, summary, newest, .. } = walked;
    output.write_all(&encode(&Reply::Listed { mount, skipped, at, summary, newest }, &[])?)?;
    Ok(Listing { tree, files, buffer: Vec::new() })
}

/// Entries that were not sent yet.
struct Batch {
    mount: usize,
    entries: Vec<ListedEntry>,
    /// At least their size in a message.
    size: usize,
}

impl Batch {
    fn add(&mut self, listed: ListedEntry, output: &mut impl Write) -> io::Result<()> {
        let size = size(&listed);
        if self.entries.len() >= MOST_ENTRIES || self.size + size > LARGEST_MESSAGE / 2 {
            self.send(output)?;
        }
        self.size += size;
        self.entries.push(listed);
        Ok(())
    }

    fn send(&mut self, output: &mut impl Write) -> io::Result<()> {
        self.size = 0;
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        output.write_all(&encode(&Reply::Entries { mount: self.mount, entries }, &[])?)
    }
}

/// Returns at least the size of an entry as JSON, in which a character takes up to six bytes, and a byte of an attribute four.
fn size(listed: &ListedEntry) -> usize {
    let entry = &listed.entry;
    let target = match &entry.kind {
        MountEntryKind::HardLink { of: target } | MountEntryKind::Link { target } => target.len(),
        _ => 0,
    };
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| 6 * name.len() + 4 * value.len() + 8).sum();
    400 + 6 * (entry.path.len() + target) + xattrs
}

impl Listing {
    /// Sends the content of files. Returns the numbers of those that vanished or changed since the list.
    ///
    /// # Errors
    /// If a number is not that of a regular file, or `output` fails.
    pub fn send(&mut self, mount: usize, files: &[u32], output: &mut impl Write) -> io::Result<Vec<u32>> {
        let mut gone = Vec::new();
        for file in files {
            if !self.send_file(mount, *file, output)? {
                gone.push(*file);
            }
        }
        Ok(gone)
    }

    fn send_file(&mut self, mount: usize, number: u32, output: &mut impl Write) -> io::Result<bool> {
        let Some(Some(state)) = self.files.get(index(number)) else {
            return Err(io::Error::other(format!("entry {number} of the list is no file")));
        };
        let Ok(parent) = self.tree.parent(number) else { return Ok(false) };
        let Ok(file) = place::open_file(&*parent, &self.tree.name(number)) else { return Ok(false) };
        let Ok(stat) = fs::fstat(&file) else { return Ok(false) };
        if state_of(&stat).as_ref() != Some(state) {
            return Ok(false);
        }
        // Most files have no holes, and save the questions for them.
        let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0) < state.size.div_ceil(512);
        let mut offset = 0;
        while let Some(data) = next_data(&file, offset, state.size, is_sparse) {
            offset = data.start;
            while offset < data.end {
                let length = usize::try_from(data.end - offset).unwrap_or(usize::MAX).min(LARGEST_PAYLOAD);
                self.buffer.resize(length, 0);
                if file.read_exact_at(&mut self.buffer, offset).is_err() {
                    return Ok(false);
                }
                output.write_all(&encode_start(&Reply::Data { mount, file: number, offset }, length)?)?;
                output.write_all(&self.buffer)?;
                offset += u64::try_from(length).unwrap_or(u64::MAX);
            }
        }
        Ok(fs::fstat(&file).is_ok_and(|stat| state_of(&stat).as_ref() == Some(state)))
    }
}

fn state_of(stat: &Stat) -> Option<State> {
    let size = u64::try_from(stat.st_size).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file.then(|| State { size, modified: modified(stat), changed: changed(stat) })
}

/// Returns the next bytes that are no hole. Returns `None` if only a hole is left.
fn next_data(file: &File, from: u64, size: u64, is_sparse: bool) -> Option<std::ops::Range<u64>> {
    if from >= size {
        return None;
    }
    if !is_sparse {
        return Some(from..size);
    }
    let start = match fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return None,
        // The file system does not tell.
        Err(_) => return Some(from..size),
    };
    let end = fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size);
    (start < size).then(|| start..end.min(size))
}
