//! Opens files and reads directories without following links, and without a trace in their times of access.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::domain::spelled;

/// The size of the buffer for names in a directory.
const NAMES: usize = 64 << 10;

/// Opens a directory by its path.
pub fn open_root(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(fs::open(path, flags, Mode::empty())?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Opens a directory in another directory.
pub fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<File> {
    open(parent, name, OFlags::DIRECTORY)
}

/// Opens a file to read it. The caller has to check that it is a regular file.
pub fn open_file(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<File> {
    // Opening a pipe would wait for a writer.
    open(parent, name, OFlags::NONBLOCK)
}

fn open(parent: impl AsFd, name: &[u8], more: OFlags) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    // Only the owner and root may ask for this.
    match fs::openat(&parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(fs::openat(&parent, name, flags, Mode::empty())?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Returns the names in an open directory, spelled, in any order.
pub fn names(directory: &File) -> rustix::io::Result<Vec<String>> {
    fs::seek(directory, SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(NAMES);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(spelled(name)),
        }
    }
    Ok(names)
}

/// Returns whether the error says that a file is not there any more, or not the directory that it was.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE))
}

/// Returns bytes as a name for the standard library.
pub fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
