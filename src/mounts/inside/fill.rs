//! Fills a mount: creates its entries, and writes the parts of its files, in the directory of incomplete files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::process::{getegid, geteuid};

use super::attributes::Attributes;
use super::items::{Item, ItemKind, failed, split};
use super::recent::Recent;
use super::staging::{FILLING, Staging};
use super::tree::{Tree, index};
use crate::domain::bytes_of;
use crate::mounts::entry::{MountEntry, MountEntryKind};

/// The most incomplete files that are open at once.
const MOST_OPEN: usize = 64;

/// A mount that is being filled. After the first error, the mount is empty, and nothing else happens.
pub struct Fill(Result<Filling, String>);

impl Fill {
    /// Begins to fill a mount.
    pub fn begin(mount: &File) -> Self {
        Self(Filling::new(mount).map_err(|error| failed("fill", "", error)))
    }

    /// Creates the next entries.
    pub fn entries(&mut self, entries: Vec<MountEntry>) {
        self.attempt(|filling| entries.into_iter().try_for_each(|entry| filling.add(entry)));
    }

    /// Writes a part of a file.
    pub fn data(&mut self, file: u32, offset: u64, part: &[u8]) {
        self.attempt(|filling| filling.write(file, offset, part));
    }

    /// Leaves the mount empty. Returns the first error.
    pub fn abandon(self) -> Option<String> {
        match self.0 {
            Ok(filling) => filling.staging.remove().err().map(|error| failed("clear", "", error)),
            Err(why) => Some(why),
        }
    }

    /// Returns the incomplete files, or the first error.
    pub fn into_filling(self) -> Result<Filling, String> {
        self.0
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Filling) -> Result<(), String>) {
        if let Ok(filling) = &mut self.0
            && let Err(why) = work(filling)
        {
            // This removes all files.
            self.0 = Err(why);
        }
    }
}

/// The incomplete files of a mount.
pub struct Filling {
    /// The mount's root.
    pub mount: File,
    /// The directory of incomplete files.
    pub staging: Staging,
    /// The paths. The numbers are those of the items.
    pub tree: Tree,
    /// All entries. The first one is the root.
    pub items: Vec<Item>,
    /// The number of each directory's path, spelled.
    directories: HashMap<Box<str>, u32>,
    /// Files of which only parts have arrived.
    files: Recent<File>,
    /// The owner and the group of new files.
    creator: (u32, u32),
}

impl Filling {
    fn new(mount: &File) -> io::Result<Self> {
        let staging = Staging::create(mount)?;
        Ok(Self {
            mount: mount.try_clone()?,
            tree: Tree::new(staging.content()?),
            staging,
            items: Vec::new(),
            directories: HashMap::new(),
            files: Recent::new(MOST_OPEN),
            creator: (geteuid().as_raw(), getegid().as_raw()),
        })
    }

    fn add(&mut self, mut entry: MountEntry) -> Result<(), String> {
        let invalid = |path: &str, why: &str| failed("create", path, why);
        if self.items.is_empty() {
            if !entry.path.is_empty() || entry.kind != MountEntryKind::Directory {
                return Err(invalid(&entry.path, "the first entry is not the mount's root"));
            }
            self.directories.insert("".into(), 0);
            self.items.push(Item::new(&mut entry, ItemKind::Directory));
            return Ok(());
        }
        let Some((parent, name)) = split(&entry.path) else { return Err(invalid(&entry.path, "invalid path")) };
        let Some(parent) = self.directories.get(parent).copied() else {
            return Err(invalid(&entry.path, "its parent is not a directory of the mount"));
        };
        let number = self.tree.add(parent, name);
        let kind = self.create(number, &entry).map_err(|error| failed("create", &entry.path, error))?;
        if matches!(kind, ItemKind::Directory) {
            self.directories.insert(entry.path.as_str().into(), number);
        }
        self.items.push(Item::new(&mut entry, kind));
        Ok(())
    }

    /// Creates all but regular files and hard links. Files are created with their content, because most have only one part.
    fn create(&mut self, number: u32, entry: &MountEntry) -> io::Result<ItemKind> {
        let parent = match &entry.kind {
            MountEntryKind::File { size } => {
                return Ok(ItemKind::File { size: *size, received: 0, is_created: false });
            }
            MountEntryKind::HardLink { of } => return Ok(ItemKind::HardLink(of.as_str().into())),
            MountEntryKind::Directory | MountEntryKind::Link { .. } | MountEntryKind::Pipe => self.tree.parent(number)?,
        };
        let name = &*self.tree.name(number);
        let MountEntry { mode, uid, gid, modified, .. } = *entry;
        let attributes = Attributes { uid, gid, mode, modified };
        match &entry.kind {
            MountEntryKind::Directory => {
                fs::mkdirat(&*parent, name, FILLING)?;
                return Ok(ItemKind::Directory);
            }
            MountEntryKind::Link { target } => fs::symlinkat(&*bytes_of(target), &*parent, name)?,
            _ => fs::mknodat(&*parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
        }
        if (uid, gid) != self.creator {
            let (uid, gid) = attributes.owner();
            fs::chownat(&*parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if entry.kind == MountEntryKind::Pipe {
            fs::chmodat(&*parent, name, attributes.permissions(), AtFlags::empty())?;
        }
        fs::utimensat(&*parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(ItemKind::Complete)
    }

    fn write(&mut self, number: u32, offset: u64, part: &[u8]) -> Result<(), String> {
        self.write_part(number, offset, part).map_err(|error| failed("write", &self.path(number), error))
    }

    fn write_part(&mut self, number: u32, offset: u64, part: &[u8]) -> io::Result<()> {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        let kind = self.items.get(index(number)).map(|item| &item.kind);
        let Some(&ItemKind::File { size, received, is_created }) = kind else {
            return Err(io::Error::other("it is no incomplete file"));
        };
        let received = received.saturating_add(length);
        if received > size || offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(io::Error::other("the data is longer than the file"));
        }
        if length == size && !is_created {
            let mut file = self.new_file(number)?;
            file.write_all(part)?;
            return self.complete(number, &file);
        }
        if !is_created {
            let file = self.new_file(number)?;
            file.set_len(size)?;
            self.files.insert(number, file);
        } else if self.files.get(number).is_none() {
            let file = self.reopen(number)?;
            self.files.insert(number, file);
        }
        if let Some(file) = self.files.get(number) {
            file.write_all_at(part, offset)?;
        }
        self.items[index(number)].kind = ItemKind::File { size, received, is_created: true };
        if received == size
            && let Some(file) = self.files.remove(number)
        {
            self.complete(number, &file)?;
        }
        Ok(())
    }

    /// Completes a file of which no more parts arrive.
    pub fn complete_file(&mut self, number: u32, size: u64, is_created: bool) -> Result<(), String> {
        let complete = |filling: &mut Self| {
            let file = match filling.files.remove(number) {
                Some(file) => file,
                None if is_created => filling.reopen(number)?,
                None => {
                    let file = filling.new_file(number)?;
                    file.set_len(size)?;
                    file
                }
            };
            filling.complete(number, &file)
        };
        complete(self).map_err(|error| failed("create", &self.path(number), error))
    }

    /// Creates another name of a file.
    pub fn link(&mut self, number: u32, of: &str) -> Result<(), String> {
        let link = |filling: &mut Self| {
            let found = split(of).and_then(|(parent, name)| Some((*filling.directories.get(parent)?, name)));
            let Some((parent, name)) = found else { return Err(io::Error::other("it has an invalid target")) };
            let (from, to) = (filling.tree.directory(parent)?, filling.tree.parent(number)?);
            Ok(fs::linkat(&*from, &*bytes_of(name), &*to, &*filling.tree.name(number), AtFlags::empty())?)
        };
        link(self).map_err(|error| failed("link", &self.path(number), error))
    }

    /// Sets the attributes of a directory.
    pub fn complete_directory(&mut self, number: u32) -> Result<(), String> {
        let complete = |filling: &mut Self| {
            let directory = filling.tree.directory(number)?;
            filling.complete(number, &directory)
        };
        complete(self).map_err(|error| failed("set the attributes of", &self.path(number), error))
    }

    /// Returns a path, spelled. Hostile requests have numbers without a path.
    fn path(&self, number: u32) -> String {
        if number < self.tree.len() { self.tree.path(number) } else { format!("file {number}") }
    }

    fn complete(&mut self, number: u32, file: &File) -> io::Result<()> {
        let item = &mut self.items[index(number)];
        item.kind = ItemKind::Complete;
        item.attributes.set(file, &std::mem::take(&mut item.xattrs), self.creator)
    }

    fn new_file(&mut self, number: u32) -> io::Result<File> {
        self.open(number, OFlags::CREATE | OFlags::EXCL)
    }

    fn reopen(&mut self, number: u32) -> io::Result<File> {
        self.open(number, OFlags::empty())
    }

    fn open(&mut self, number: u32, how: OFlags) -> io::Result<File> {
        let parent = self.tree.parent(number)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | how;
        Ok(fs::openat(&*parent, &*self.tree.name(number), flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}
