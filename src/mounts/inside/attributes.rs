//! Owners, modes, times and extended attributes: reads them from files and sets them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use rustix::fs::{self, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use xattr::FileExt as _;

use super::place::os;
use crate::domain::{bytes_of, spelled};

/// Owner, mode and times of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub modified: i64,
}

impl Attributes {
    /// Returns the owner and the group.
    pub fn owner(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// Returns the mode without the file's type.
    pub fn permissions(self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }

    /// Returns the times to set. On a file system with `relatime`, the first read changes a time of access that is not after the time
    /// of change, so that it tells which files were used.
    pub fn times(self) -> Timestamps {
        timestamps(self.modified)
    }

    /// Sets everything, on a file with its final content.
    pub fn set(self, file: &File, xattrs: &BTreeMap<String, Vec<u8>>, creator: (u32, u32)) -> io::Result<()> {
        // A change of the owner removes setuid bits and capabilities.
        if (self.uid, self.gid) != creator {
            let (uid, gid) = self.owner();
            fs::fchown(file, uid, gid)?;
        }
        fs::fchmod(file, self.permissions())?;
        set_xattrs(file, xattrs)?;
        Ok(fs::futimens(file, &self.times())?)
    }
}

/// Returns the time of access and of change for this time of change.
pub fn timestamps(modified: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified.div_euclid(1_000_000_000), tv_nsec: modified.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets extended attributes. Skips those that the file system or the container does not allow.
pub fn set_xattrs(file: &File, xattrs: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for (name, value) in xattrs {
        match file.set_xattr(os(&bytes_of(name)), value) {
            Err(error) if !matches!(Errno::from_io_error(&error), Some(Errno::NOTSUP | Errno::PERM)) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the extended attributes that hakobi carries: all others belong to the machine, like the labels of SELinux.
pub fn xattrs(file: &File) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let names = match file.list_xattr() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        names => names?,
    };
    let mut found = BTreeMap::new();
    for name in names {
        let spelling = spelled(std::os::unix::ffi::OsStrExt::as_bytes(&*name));
        if is_carried(&spelling)
            && let Ok(Some(value)) = file.get_xattr(&name)
        {
            found.insert(spelling, value);
        }
    }
    Ok(found)
}

fn is_carried(name: &str) -> bool {
    let is_of_user = name.starts_with("user.") && !name.starts_with("user.overlay.");
    is_of_user || matches!(name, "security.capability" | "system.posix_acl_access" | "system.posix_acl_default")
}

/// Returns the time of the last change of content, in nanoseconds since 1970.
pub fn modified(stat: &Stat) -> i64 {
    nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64)
}

/// Returns the time of the last access.
pub fn accessed(stat: &Stat) -> i64 {
    nanoseconds(stat.st_atime, stat.st_atime_nsec as i64)
}

/// Returns the time of the last change of anything, by the kernel's clock.
pub fn changed(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64)
}

/// Returns a time as one number. Times after 2262 and before 1677 become the last and the first one.
pub fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
