//! Creates directories for temporary files, and finds those that killed runs left.
//!
//! Each directory has a lock file that its run locks (`flock`). Another run can thus be certain that a run is dead. The file also
//! contains the words in that run's names in the daemon.

use crate::error::{self, Error, Kind};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The prefix of the directories' names.
const PREFIX: &str = "hakobi-";

/// The name of the lock file in each directory.
const LOCK: &str = "lock";

/// The name of the directory for temporary files in each directory.
const FILES: &str = "files";

/// The minimum age of a dead run's directory. A younger run may not have locked its file yet.
const YOUNG: Duration = Duration::from_secs(60);

/// The minimum age of a dead run's directory on another machine, whose locks may not be visible here.
const FOREIGN: Duration = Duration::from_secs(48 * 3600);

/// The maximum number of bytes that hakobi reads from a lock file.
const LIMIT: u64 = 64 << 10;

/// A directory for temporary files. Dropping this value removes it with all its content.
#[derive(Debug)]
pub struct Scratch {
    // The directory is dropped before the lock, so that no other run takes it for a dead run's during the removal.
    directory: tempfile::TempDir,
    files: PathBuf,
    lock: Option<File>,
}

/// Creates a directory in TMPDIR for layers. `kind` is the kind of the error.
///
/// # Errors
/// If hakobi cannot create the directory.
pub fn temp_dir(kind: Kind) -> error::Result<Scratch> {
    Scratch::new().map_err(|error| {
        let error = Error::new(kind, "cannot create a temporary directory for layers").because(&error);
        error.hint("set TMPDIR to another directory")
    })
}

impl Scratch {
    /// Creates a directory in TMPDIR.
    ///
    /// # Errors
    /// If hakobi cannot create the directory.
    pub fn new() -> io::Result<Self> {
        Self::new_in(&tempfile::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let files = directory.path().join(FILES);
        fs::create_dir(&files)?;
        // A directory without a lock is never taken for a dead run's. On a full disk, the content of the lock file may be missing.
        let path = directory.path().join(LOCK);
        let lock = File::create_new(&path).ok().filter(|file| file.try_lock().is_ok());
        if let Some(lock) = &lock {
            let _ = writeln!(&*lock, "boot {}", boot_id());
        } else {
            let _ = fs::remove_file(&path);
        }
        Ok(Self { directory, files, lock })
    }

    /// Returns the directory for temporary files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files
    }

    /// Records a word that occurs in this run's names in the daemon. If this run is killed, another run can remove those names.
    pub fn remember(&self, word: &str) {
        if let Some(lock) = &self.lock {
            let _ = writeln!(&*lock, "word {word}");
        }
    }

    /// Returns the directories next to this one that belong to dead runs of this user.
    #[must_use]
    pub fn dead(&self) -> Vec<Dead> {
        let own = fs::symlink_metadata(self.directory.path()).ok();
        let (Some(own), Some(parent)) = (own, self.directory.path().parent()) else { return Vec::new() };
        let entries = fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
        named.filter_map(|entry| Dead::find(entry.path(), own.uid())).collect()
    }
}

/// A directory of a dead run. It is locked, so that no other run removes it too.
#[derive(Debug)]
pub struct Dead {
    path: PathBuf,
    words: Vec<String>,
    _lock: File,
}

impl Dead {
    /// Returns `None` if another user owns the directory, or its run may still be alive.
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

    /// Returns the words in the run's names in the daemon.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// If hakobi cannot remove all of it.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Returns an ID of this machine since its start. Other machines may share TMPDIR.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates the directory of a run that was killed this long ago.
    fn left(parent: &Path, ago: Duration) -> PathBuf {
        let scratch = Scratch::new_in(parent).unwrap();
        scratch.remember("hakobi-0a");
        fs::write(scratch.path().join("blob"), "x").unwrap();
        let path = scratch.directory.path().to_owned();
        File::options().write(true).open(path.join(LOCK)).unwrap().set_modified(SystemTime::now() - ago).unwrap();
        // The kernel drops the lock of a killed process, but leaves its files.
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
        // A directory of another tool, or of an older hakobi.
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
