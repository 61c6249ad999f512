//! A store in a directory: on this machine, on a mounted volume, or in a file cache of the CI (CodeBuild's and Travis's).

use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{Entry, Error, Name, Object, ObjectStore, Result};
use crate::transfer::ByteStream;

/// The start of partial files' names; no [`Name`] begins like this.
const PARTIAL: &str = ".hakobi-";

/// How often a file is begun whose directory vanishes.
const ATTEMPTS: u32 = 5;

/// How many bytes are read and written at once.
const BUFFER: usize = 256 << 10;

/// Objects as files below a directory. A complete file appears by renaming: readers and other writers never see a partial one.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Returns the store in this directory. The first write creates the directory.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn size(&self, name: &Name) -> Result<Option<u64>> {
        let path = self.path(name);
        match absent_is_none(tokio::fs::metadata(&path).await) {
            Ok(metadata) => Ok(metadata.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())),
            Err(error) => Err(Error::io("check", &path, &error)),
        }
    }

    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>> {
        let path = self.path(name);
        let fault = |error: io::Error| Error::io("read", &path, &error);
        let Some(mut file) = absent_is_none(tokio::fs::File::open(&path).await).map_err(fault)? else { return Ok(None) };
        file.set_max_buf_size(BUFFER);
        if range.start > 0 {
            file.seek(io::SeekFrom::Start(range.start)).await.map_err(fault)?;
        }
        Ok(Some(Box::pin(file.take(range.end.saturating_sub(range.start)))))
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()> {
        let path = self.path(name);
        let fault = |error: io::Error| Error::io("write", &path, &error);
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        let partial = tokio::task::spawn_blocking(move || partial(&parent)).await.map_err(io::Error::other);
        let (file, partial) = partial.and_then(|made| made).map_err(fault)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(BUFFER);
        let mut bytes = object.open().await.map_err(fault)?;
        tokio::io::copy(&mut bytes, &mut file).await.map_err(fault)?;
        file.flush().await.map_err(fault)?;
        // On any earlier return, dropping the partial file removes it.
        partial.persist(&path).map_err(|error| fault(error.error))
    }

    async fn replace(&self, name: &Name, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
        let (path, before) = (self.path(name), before.cloned());
        let replaced = tokio::task::spawn_blocking({
            let path = path.clone();
            move || replace(&path, before.as_ref(), &after)
        });
        let replaced = replaced.await.map_err(io::Error::other).and_then(|replaced| replaced);
        replaced.map_err(|error| Error::io("write", &path, &error))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let listed = tokio::task::spawn_blocking(move || {
            let mut entries = Vec::new();
            let start = root.join(prefix.trim_end_matches('/'));
            walk(&root, &start, &mut entries).map(|()| entries)
        });
        listed.await.map_err(io::Error::other).and_then(|listed| listed).map_err(|error| Error::io("list", &self.root, &error))
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let path = self.path(name);
        match absent_is_none(tokio::fs::remove_file(&path).await) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::io("delete", &path, &error)),
        }
    }

    async fn delete_leftovers(&self, before: u64) -> Result<u64> {
        let root = self.root.clone();
        let deleted = tokio::task::spawn_blocking(move || delete_partial(&root, before));
        let deleted = deleted.await.map_err(io::Error::other).and_then(|deleted| deleted);
        deleted.map_err(|error| Error::io("clean", &self.root, &error))
    }
}

/// Replaces a file, if it has these bytes. Whoever replaces it holds the lock of a file beside it. That file stays, because another
/// run may wait for it; like a partial one, it goes when it is old.
fn replace(path: &Path, before: Option<&Bytes>, after: &Bytes) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let lock = parent.join(format!("{PARTIAL}lock"));
    std::fs::create_dir_all(parent)?;
    let lock = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(lock)?;
    lock.lock()?;
    if absent_is_none(std::fs::read(path))?.as_deref() != before.map(|bytes| &**bytes) {
        return Ok(false);
    }
    let mut new = partial(parent)?;
    new.write_all(after)?;
    new.persist(path)?;
    Ok(true)
}

/// Removes partial files that nobody has written to since this time, and directories without files.
fn delete_partial(directory: &Path, before: u64) -> io::Result<u64> {
    let mut deleted = 0;
    let Some(read) = absent_is_none(std::fs::read_dir(directory))? else { return Ok(0) };
    for entry in read {
        let entry = entry?;
        let Some(metadata) = absent_is_none(entry.metadata())? else { continue };
        if metadata.is_dir() {
            deleted += delete_partial(&entry.path(), before)?;
            if seconds(&metadata)? < before {
                // It fails if there is a file in it, also if that came just now.
                let _ = std::fs::remove_dir(entry.path());
            }
        } else if entry.file_name().to_string_lossy().starts_with(PARTIAL) && seconds(&metadata)? < before {
            deleted += u64::from(absent_is_none(std::fs::remove_file(entry.path()))?.is_some());
        }
    }
    Ok(deleted)
}

fn seconds(metadata: &std::fs::Metadata) -> io::Result<u64> {
    Ok(metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Creates a file in the directory of its destination, with the mode that the umask allows: the next run may be another user's.
fn partial(parent: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let mut attempt = 1;
    loop {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(PARTIAL).permissions(std::fs::Permissions::from_mode(0o666));
        match std::fs::create_dir_all(parent).and_then(|()| builder.tempfile_in(parent)) {
            // Another run has just removed the directory, because it was empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            made => return made,
        }
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn walk(root: &Path, directory: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    let Some(read) = absent_is_none(std::fs::read_dir(directory))? else { return Ok(()) };
    for entry in read {
        let entry = entry?;
        // Another run may delete or complete a file meanwhile.
        let Some(metadata) = absent_is_none(entry.metadata())? else { continue };
        let path = entry.path();
        if metadata.is_dir() {
            walk(root, &path, entries)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str).and_then(|text| text.parse::<Name>().ok())
        {
            entries.push(Entry { name, size: metadata.len(), written: seconds(&metadata)? });
        }
    }
    Ok(())
}
