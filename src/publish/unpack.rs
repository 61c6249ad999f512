//! Unpacks a tar into a directory of this machine, like fsutil's receiver (`DiskWriter`). It replaces existing files, never follows
//! them, and deletes nothing else.
//!
//! It opens every path component by component from the directory itself, without following links. So nothing is written outside,
//! whatever the directory contains and whoever changes it meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::transfer::{LayerEntries, LayerEntry};

/// The flags for opening a directory.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of directories while hakobi fills them.
const FILLING: Mode = Mode::RWXU;

/// Writes all entries into a directory, with the modes, times and extended attributes of the entries. The files belong to the user
/// who runs hakobi. Modes and times of directories come last, because a read-only directory cannot be filled, and filling one
/// changes its time.
///
/// # Errors
/// If the tar is damaged or leads out of the directory, or a file cannot be written.
pub fn unpack(from: impl Read, into: &Path) -> io::Result<()> {
    let root = OwnedFd::from(File::open(into)?);
    let mut entries = LayerEntries::new(from);
    let mut directories: Vec<(Vec<Vec<u8>>, LayerEntry)> = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        let mut path = components(&entry.path)?;
        let Some(name) = path.pop() else { continue };
        let parent = descend(&root, &path)?;
        let place = Place { parent: parent.as_fd(), name: &name };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", entry.path.escape_ascii()));
        if entry.header.entry_type() == tar::EntryType::Directory {
            place.directory().map_err(named)?;
            path.push(name.clone());
            directories.push((path, entry));
            continue;
        }
        let temporary = temporary_name();
        let beside = Place { parent: parent.as_fd(), name: &temporary };
        let placed = beside.make(&root, &entry, &mut entries).and_then(|()| {
            place.remove_directory()?;
            fs::renameat(parent.as_fd(), os(&temporary), parent.as_fd(), os(&name))?;
            Ok(())
        });
        // This is also needed if the rename was between two names of one file: such a rename does nothing.
        let _ = fs::unlinkat(parent.as_fd(), os(&temporary), AtFlags::empty());
        placed.map_err(named)?;
    }
    for (path, entry) in directories.into_iter().rev() {
        finish(&descend(&root, &path)?, &entry)?;
    }
    Ok(())
}

/// A name in a directory.
struct Place<'a> {
    parent: BorrowedFd<'a>,
    name: &'a [u8],
}

impl Place<'_> {
    fn kind(&self) -> io::Result<Option<FileType>> {
        match fs::statat(self.parent, os(self.name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory of this name, writable. Replaces whatever else has the name.
    fn directory(&self) -> io::Result<OwnedFd> {
        match self.kind()? {
            Some(FileType::Directory) => {}
            Some(_) => {
                fs::unlinkat(self.parent, os(self.name), AtFlags::empty())?;
                fs::mkdirat(self.parent, os(self.name), FILLING)?;
            }
            None => fs::mkdirat(self.parent, os(self.name), FILLING)?,
        }
        let directory = fs::openat(self.parent, os(self.name), DIRECTORY, Mode::empty())?;
        let mode = Mode::from_raw_mode(fs::fstat(&directory)?.st_mode);
        if !mode.contains(FILLING) {
            fs::fchmod(&directory, mode | FILLING)?;
        }
        Ok(directory)
    }

    /// Removes the directory of this name, to make room for another kind of file.
    fn remove_directory(&self) -> io::Result<()> {
        if self.kind()? != Some(FileType::Directory) {
            return Ok(());
        }
        let directory = self.directory()?;
        for entry in fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let inner = Place { parent: directory.as_fd(), name };
            match inner.kind()? {
                Some(FileType::Directory) => inner.remove_directory()?,
                Some(_) => fs::unlinkat(&directory, os(name), AtFlags::empty())?,
                None => {}
            }
        }
        Ok(fs::unlinkat(self.parent, os(self.name), AtFlags::REMOVEDIR)?)
    }

    /// Creates a file that is no directory, under a free name.
    fn make(&self, root: &OwnedFd, entry: &LayerEntry, bytes: &mut impl Read) -> io::Result<()> {
        let header = &entry.header;
        match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous if !entry.sparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(fs::openat(self.parent, os(self.name), flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(bytes, &mut file)?;
                return finish(&OwnedFd::from(file), entry);
            }
            tar::EntryType::Link => {
                let mut target = components(&entry.link)?;
                let name = target.pop().ok_or_else(|| io::Error::other("a link has no target"))?;
                let parent = descend(root, &target)?;
                return Ok(fs::linkat(parent, os(&name), self.parent, os(self.name), AtFlags::empty())?);
            }
            tar::EntryType::Symlink => fs::symlinkat(os(&entry.link), self.parent, os(self.name))?,
            kind @ (tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block) => {
                let kind = match kind {
                    tar::EntryType::Fifo => FileType::Fifo,
                    tar::EntryType::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let numbers = kind != FileType::Fifo;
                let number =
                    |number: io::Result<Option<u32>>| if numbers { number.map(Option::unwrap_or_default) } else { Ok(0) };
                let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
                let mode = mode(entry)?;
                fs::mknodat(self.parent, os(self.name), kind, mode, fs::makedev(major, minor))?;
                fs::chmodat(self.parent, os(self.name), mode, AtFlags::empty())?;
            }
            other => return Err(io::Error::other(format!("it has the unsupported type {other:?}"))),
        }
        Ok(fs::utimensat(self.parent, os(self.name), &times(entry)?, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Sets the owner, mode, times and attributes of a file or directory from its entry.
fn finish(open: &OwnedFd, entry: &LayerEntry) -> io::Result<()> {
    let (stat, user, group) = (fs::fstat(open)?, rustix::process::getuid(), rustix::process::getgid());
    if (stat.st_uid, stat.st_gid) != (user.as_raw(), group.as_raw()) {
        fs::fchown(open, Some(user), Some(group))?;
    }
    for (name, value) in &entry.xattrs {
        // hakobi ignores failures like fsutil: not every file system, and not every user, can set each attribute.
        let _ = fs::fsetxattr(open, os(name), value, XattrFlags::empty());
    }
    fs::fchmod(open, mode(entry)?)?;
    Ok(fs::futimens(open, &times(entry)?)?)
}

fn mode(entry: &LayerEntry) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(entry.header.mode()? & 0o7777))
}

fn times(entry: &LayerEntry) -> io::Result<Timestamps> {
    let modified = Timespec { tv_sec: i64::try_from(entry.header.mtime()?).unwrap_or(i64::MAX), tv_nsec: 0 };
    Ok(Timestamps { last_access: modified, last_modification: modified })
}

/// Opens the directory of these components. Replaces anything on the way that is no directory.
fn descend(root: &OwnedFd, path: &[Vec<u8>]) -> io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for name in path {
        let next = fs::openat(&at, os(name), DIRECTORY, Mode::empty());
        at = match next {
            Ok(next) => next,
            Err(_) => Place { parent: at.as_fd(), name }.directory()?,
        };
    }
    Ok(at)
}

fn components(path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    if parts.iter().any(|part| part == b"..") {
        return Err(io::Error::other(format!("the archive has the invalid path {}", path.escape_ascii())));
    }
    Ok(parts)
}

fn temporary_name() -> Vec<u8> {
    format!(".hakobi-{:016x}", rand::random::<u64>()).into_bytes()
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};

    use super::*;

    /// A tar of these entries: path, kind, mode, link or content. All have the time 1,000.
    fn archive(entries: &[(&str, tar::EntryType, u32, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, mode, text) in entries {
            let mut header = tar::Header::new_ustar();
            let fields = header.as_ustar_mut().unwrap();
            fields.name[..path.len()].copy_from_slice(path.as_bytes());
            let is_file = *kind == tar::EntryType::Regular;
            if !is_file {
                fields.linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(1000);
            header.set_size(if is_file { text.len() as u64 } else { 0 });
            header.set_cksum();
            tar.append(&header, if is_file { text.as_bytes() } else { b"" }).unwrap();
        }
        tar.into_inner().unwrap()
    }

    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};

    #[test]
    fn links_that_stand_there_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, into) = (folder.path().join("outside"), folder.path().join("into"));
        std::fs::create_dir_all(outside.join("sub")).unwrap();
        std::fs::create_dir(&into).unwrap();
        std::fs::write(outside.join("file"), "untouched").unwrap();
        std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o751)).unwrap();
        symlink(&outside, into.join("d")).unwrap();
        symlink(outside.join("file"), into.join("f")).unwrap();
        symlink("nowhere", into.join("l")).unwrap();
        std::fs::hard_link(outside.join("file"), into.join("h")).unwrap();
        let entries = [
            ("d/", Directory, 0o700, ""),
            ("d/sub/new", Regular, 0o600, "x"),
            ("f", Regular, 0o4755, "new"),
            ("h", Regular, 0o644, "new"),
            ("l", Symlink, 0o777, "f"),
        ];
        unpack(&archive(&entries)[..], &into).unwrap();
        let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        assert_eq!((mode(&outside), std::fs::read_dir(outside.join("sub")).unwrap().count()), (0o751, 0));
        assert!(into.join("d").symlink_metadata().unwrap().is_dir());
        assert_eq!((mode(&into.join("d")), mode(&into.join("f"))), (0o700, 0o4755));
        assert_eq!(std::fs::read_link(into.join("l")).unwrap(), Path::new("f"));
        assert_eq!(std::fs::read_to_string(into.join("h")).unwrap(), "new");
    }

    #[test]
    fn what_stands_there_makes_way_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path();
        std::fs::create_dir_all(into.join("was-dir/deep")).unwrap();
        std::fs::write(into.join("was-dir/deep/file"), "").unwrap();
        symlink("/", into.join("was-dir/deep/root")).unwrap();
        std::fs::write(into.join("was-file"), "").unwrap();
        std::fs::create_dir(into.join("both")).unwrap();
        std::fs::write(into.join("both/stays"), "").unwrap();
        let entries = [
            ("was-dir", Regular, 0o644, "a"),
            ("was-file/", Directory, 0o555, ""),
            ("was-file/in", Regular, 0o444, "b"),
            ("was-file/same", Link, 0o444, "was-file/in"),
            ("both/", Directory, 0o1770, ""),
            ("pipe", Fifo, 0o622, ""),
        ];
        for _ in 0..2 {
            unpack(&archive(&entries)[..], into).unwrap();
        }
        let at = |path: &str| into.join(path).symlink_metadata().unwrap();
        assert!(at("was-dir").is_file() && at("both/stays").is_file() && at("pipe").file_type().is_fifo());
        assert_eq!(
            (at("was-file").mode() & 0o7777, at("both").mode() & 0o7777, at("pipe").mode() & 0o7777),
            (0o555, 0o1770, 0o622)
        );
        assert_eq!((at("was-file/in").ino(), at("was-file/in").nlink()), (at("was-file/same").ino(), 2));
        for path in ["was-dir", "was-file", "was-file/in", "both", "pipe"] {
            assert_eq!(at(path).mtime(), 1000, "{path}");
        }
        assert_eq!(std::fs::read_dir(into).unwrap().count(), 4, "nothing is left beside");
    }

    #[test]
    fn nothing_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        std::fs::create_dir(&into).unwrap();
        for path in ["../x", "a/../../x"] {
            assert!(unpack(&archive(&[(path, Regular, 0o644, "")])[..], &into).is_err(), "{path}");
            assert!(unpack(&archive(&[("y", Link, 0o644, path)])[..], &into).is_err(), "{path}");
        }
        // Not even through a link that the archive itself contains.
        let entries = [("l", Symlink, 0o777, ".."), ("l/x", Regular, 0o644, "")];
        unpack(&archive(&entries)[..], &into).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        unpack(&archive(&[("/abs", Regular, 0o644, "")])[..], &into).unwrap();
        assert!(into.join("abs").exists());
    }
}
