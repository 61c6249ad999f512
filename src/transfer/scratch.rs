//! Folders for temporary files, and those that runs left which were killed.
//!
//! Each folder has a lock file that its run holds (`flock`), so that another run can tell a dead one's for certain. The file also
//! says which names in the daemon are that run's.

use crate::error::{self, Error, Kind};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the folders' names begin with.
const PREFIX: &str = "hakobi-";

/// The lock file in each.
const LOCK: &str = "lock";

/// Where temporary files lie in each.
const FILES: &str = "files";

/// How old a folder is before it can be a dead run's: its lock may not be held yet.
const YOUNG: Duration = Duration::from_secs(60);

/// How old a folder of another machine is before it can be a dead run's: locks may not be seen from here.
const FOREIGN: Duration = Duration::from_secs(48 * 3600);

/// Largest lock file that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// A folder for temporary files. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    // Before the lock: nobody takes a folder for a dead run's while it is removed.
    directory: tempfile::TempDir,
    files: PathBuf,
    lock: Option<File>,
}

/// A new folder in TMPDIR for layers. `kind` is that of the error.
///
/// # Errors
/// If the folder cannot be made.
pub fn temp_dir(kind: Kind) -> error::Result<Scratch> {
    Scratch::new().map_err(|error| {
        let error = Error::new(kind, "cannot create a temporary directory for layers").because(&error);
        error.hint("set TMPDIR to another directory")
    })
}

impl Scratch {
    /// A new folder in TMPDIR.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new() -> io::Result<Self> {
        Self::new_in(&tempfile::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let files = directory.path().join(FILES);
        fs::create_dir(&files)?;
        // Without a lock the folder is never taken for a dead run's. A full disk may lack the room for what the file says.
        let path = directory.path().join(LOCK);
        let lock = File::create_new(&path).ok().filter(|file| file.try_lock().is_ok());
        if let Some(lock) = &lock {
            let _ = writeln!(&*lock, "boot {}", boot_id());
        } else {
            let _ = fs::remove_file(&path);
        }
        Ok(Self { directory, files, lock })
    }

    /// Where files may be put.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files
    }

    /// Remembers a word that this run's names in the daemon have, for the case that the run is killed.
    pub fn remember(&self, word: &str) {
        if let Some(lock) = &self.lock {
            let _ = writeln!(&*lock, "word {word}");
        }
    }

    /// The folders beside this one that runs of this user left which are dead.
    #[must_use]
    pub fn dead(&self) -> Vec<Dead> {
        let own = fs::symlink_metadata(self.directory.path()).ok();
        let (Some(own), Some(parent)) = (own, self.directory.path().parent()) else { return Vec::new() };
        let entries = fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
        named.filter_map(|entry| Dead::find(entry.path(), own.uid())).collect()
    }
}

/// A folder of a run that is dead. It is locked, so that no other run takes it as well.
#[derive(Debug)]
pub struct Dead {
    path: PathBuf,
    words: Vec<String>,
    _lock: File,
}

impl Dead {
    /// Returns `None` if the folder is not this user's, or its run may live.
    fn find(path: PathBuf, uid: u32) -> Option<Self> {
        let folder = fs::symlink_metadata(&path).ok().filter(|folder| folder.is_dir() && folder.uid() == uid)?;
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).ok()?;
        let lock = OpenOptions::new().read(true).write(true).custom_flags(no_follow).open(path.join(LOCK)).ok()?;
        let made = lock.metadata().ok().filter(|lock| lock.is_file() && lock.uid() == folder.uid())?.modified().ok()?;
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        if age < YOUNG || lock.try_lock().is_err() {
            return None;
        }
        let mut text = String::new();
        (&lock).take(LIMIT).read_to_string(&mut text).ok()?;
        let is_here = text.lines().next() == Some(&format!("boot {}", boot_id()));
        if !is_here && age < FOREIGN {
            return None;
        }
        let words = text.lines().filter_map(|line| line.strip_prefix("word ")).map(str::to_owned).collect();
        Some(Self { path, words, _lock: lock })
    }

    /// The words that its names in the daemon have.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// If something of it cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Tells this machine, since it was started, from others that may share TMPDIR.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a killed run leaves it, `ago` before now.
    fn left(parent: &Path, ago: Duration) -> PathBuf {
        let scratch = Scratch::new_in(parent).unwrap();
        scratch.remember("hakobi-0a");
        fs::write(scratch.path().join("blob"), "x").unwrap();
        let path = scratch.directory.path().to_owned();
        File::options().write(true).open(path.join(LOCK)).unwrap().set_modified(SystemTime::now() - ago).unwrap();
        // Dropped without its files being removed, as the kernel does.
        let Scratch { directory, .. } = scratch;
        directory.keep()
    }

    #[test]
    fn what_a_dead_run_left_is_found_and_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = Scratch::new_in(parent.path()).unwrap();
        let old = left(parent.path(), Duration::from_secs(3600));
        let young = left(parent.path(), Duration::ZERO);
        let living = Scratch::new_in(parent.path()).unwrap();
        let lock = living.lock.as_ref().unwrap();
        lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        // Of another tool, or of an older hakobi.
        let other = parent.path().join("hakobi-input-x");
        fs::create_dir(&other).unwrap();
        let mut dead = own.dead();
        assert_eq!(dead.len(), 1);
        assert!(own.dead().is_empty(), "it is locked by now");
        let found = dead.remove(0);
        assert_eq!((&found.path, found.words()), (&old, &["hakobi-0a".to_owned()][..]));
        found.remove().unwrap();
        assert!(!old.exists() && young.exists() && living.path().exists() && other.exists());
    }

    #[test]
    fn another_machines_folder_has_to_be_old() {
        let parent = tempfile::tempdir().unwrap();
        let own = Scratch::new_in(parent.path()).unwrap();
        for (hours, count) in [(1, 0), (50, 1)] {
            let path = left(parent.path(), Duration::ZERO);
            fs::write(path.join(LOCK), "boot another\nword w\n").unwrap();
            let lock = File::options().write(true).open(path.join(LOCK)).unwrap();
            lock.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
            assert_eq!(own.dead().len(), count, "{hours} h");
        }
    }

    #[test]
    fn it_goes_with_its_files() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new_in(parent.path()).unwrap();
        fs::write(scratch.path().join("blob"), "x").unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
