//! The directory in a mount in which its files wait until all of them are there.
//!
//! It has the files in `content`. While they move into the mount, the file `moving` has their names. So the next process can remove
//! what a killed one left, wherever that was killed. A lock on the directory tells whether its process still lives.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::place::{names, open_directory, open_file};
use crate::domain::bytes_of;

/// The name of the directory.
pub const NAME: &str = ".hakobi-incomplete";

const CONTENT: &str = "content";
const MOVING: &str = "moving";

/// The mode of directories while hakobi fills or removes them.
pub const FILLING: Mode = Mode::RWXU;

/// The directory, with its lock. Dropping this value leaves the mount empty, unless [`Self::commit`] came before.
pub struct Staging {
    mount: File,
    directory: File,
    is_done: bool,
}

impl Staging {
    /// Creates the directory in an empty mount.
    ///
    /// # Errors
    /// If the mount is not empty, another process fills it, or a file cannot be written.
    pub fn create(mount: &File) -> io::Result<Self> {
        let busy = || io::Error::other("another process fills it");
        let mount = mount.try_clone()?;
        if !Self::clean(&mount)? {
            return Err(busy());
        }
        if !is_empty(&mount)? {
            return Err(io::Error::other("it is not empty"));
        }
        fs::mkdirat(&mount, NAME, FILLING)?;
        let directory = open_directory(&mount, NAME.as_bytes())?;
        // Another process may have removed it, or made its own, before it had the lock.
        if !lock(&directory)? || !is_there(&mount, &directory)? {
            return Err(busy());
        }
        let staging = Self { mount, directory, is_done: false };
        // Nothing of the mount's root passes to the files: no group, no access control list.
        fs::fchown(&staging.directory, Some(geteuid()), Some(getegid()))?;
        fs::fchmod(&staging.directory, FILLING)?;
        let _ = fs::fremovexattr(&staging.directory, "system.posix_acl_default");
        fs::mkdirat(&staging.directory, CONTENT, FILLING)?;
        Ok(staging)
    }

    /// Removes what a killed process left. Returns `false` if a living process fills the mount.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn clean(mount: &File) -> io::Result<bool> {
        let directory = match open_directory(mount, NAME.as_bytes()) {
            Err(Errno::NOENT) => return Ok(true),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                fs::unlinkat(mount, NAME, AtFlags::empty())?;
                return Ok(true);
            }
            opened => opened?,
        };
        if !lock(&directory)? {
            return Ok(false);
        }
        Self { mount: mount.try_clone()?, directory, is_done: false }.remove()?;
        Ok(true)
    }

    /// Opens the directory for the files.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn content(&self) -> io::Result<File> {
        Ok(open_directory(&self.directory, CONTENT.as_bytes())?)
    }

    /// Moves all files into the mount, where these are the names of the upper ones.
    ///
    /// # Errors
    /// If the mount is not empty any more, or a file cannot be moved.
    pub fn move_all(&self, names: &[Vec<u8>]) -> io::Result<()> {
        if !is_empty(&self.mount)? {
            return Err(io::Error::other("another process has written to the mount"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut moving = File::from(fs::openat(&self.directory, MOVING, flags, Mode::RUSR | Mode::WUSR)?);
        moving.write_all(&names.join(&0))?;
        let content = self.content()?;
        for name in names {
            match fs::renameat_with(&content, &name[..], &self.mount, &name[..], RenameFlags::NOREPLACE) {
                // Not every file system can promise not to replace a file.
                Err(Errno::INVAL | Errno::NOSYS) => fs::renameat(&content, &name[..], &self.mount, &name[..])?,
                moved => moved?,
            }
        }
        Ok(())
    }

    /// Removes the directory after all files have moved. From here on, the mount keeps them.
    ///
    /// # Errors
    /// If the list of names cannot be removed.
    pub fn commit(mut self) -> io::Result<()> {
        fs::unlinkat(&self.directory, MOVING, AtFlags::empty())?;
        self.is_done = true;
        // If this fails, the next process removes the empty directories.
        let _ = fs::unlinkat(&self.directory, CONTENT, AtFlags::REMOVEDIR);
        let _ = fs::unlinkat(&self.mount, NAME, AtFlags::REMOVEDIR);
        Ok(())
    }

    /// Removes the directory and all files, also those that have moved already.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(mut self) -> io::Result<()> {
        self.is_done = true;
        self.remove_all()
    }

    fn remove_all(&self) -> io::Result<()> {
        self.take_back()?;
        // Before the content: a name that is in neither would count as moved.
        match fs::unlinkat(&self.directory, MOVING, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        clear(&self.directory)?;
        Ok(fs::unlinkat(&self.mount, NAME, AtFlags::REMOVEDIR)?)
    }

    /// Moves files back from the mount.
    fn take_back(&self) -> io::Result<()> {
        let mut moving = Vec::new();
        match open_file(&self.directory, MOVING.as_bytes()) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?.read_to_end(&mut moving)?,
        };
        let content = self.content()?;
        for (number, name) in moving.split(|byte| *byte == 0).enumerate() {
            let in_content = fs::statat(&content, name, AtFlags::SYMLINK_NOFOLLOW);
            if name.is_empty() || in_content.err() != Some(Errno::NOENT) {
                continue;
            }
            match take(&self.mount, name, &self.directory, &format!("moved-{number}")) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_done {
            // The next process tries again.
            let _ = self.remove_all();
        }
    }
}

/// Removes everything in a directory. Subdirectories move up to it first, so that no depth is too deep.
fn clear(directory: &File) -> io::Result<()> {
    let mut number = 0;
    loop {
        let found = names(directory)?;
        if found.is_empty() {
            return Ok(());
        }
        for name in found {
            let name = &*bytes_of(&name);
            if unlink(directory, name)? {
                continue;
            }
            let inner = match open_directory(directory, name) {
                Err(Errno::ACCESS) => {
                    fs::chmodat(directory, name, FILLING, AtFlags::empty())?;
                    open_directory(directory, name)?
                }
                opened => opened?,
            };
            let _ = fs::fchmod(&inner, FILLING);
            for child in names(&inner)? {
                let child = &*bytes_of(&child);
                if unlink(&inner, child)? {
                    continue;
                }
                loop {
                    number += 1;
                    match take(&inner, child, directory, &format!("removing-{number}")) {
                        Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                        taken => break taken?,
                    }
                }
            }
            fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes a file. Returns `false` if it is a directory.
fn unlink(parent: &File, name: &[u8]) -> rustix::io::Result<bool> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a file of any kind. Without root's rights, a directory that moves has to be writable.
fn take(from: &File, name: &[u8], to: &File, new: &str) -> rustix::io::Result<()> {
    match fs::renameat(from, name, to, new) {
        Err(Errno::ACCESS) => {
            let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(Errno::ACCESS);
            }
            fs::chmodat(from, name, FILLING, AtFlags::empty())?;
            fs::renameat(from, name, to, new)
        }
        moved => moved,
    }
}

fn lock(directory: &File) -> rustix::io::Result<bool> {
    match fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        locked => locked.map(|()| true),
    }
}

/// Returns whether this is the directory that has the name now.
fn is_there(mount: &File, directory: &File) -> rustix::io::Result<bool> {
    match fs::statat(mount, NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        stat => Ok(stat?.st_ino == fs::fstat(directory)?.st_ino),
    }
}

fn is_empty(mount: &File) -> rustix::io::Result<bool> {
    Ok(names(mount)?.iter().all(|name| name == NAME))
}
