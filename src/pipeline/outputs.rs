//! `-o` of other types: what the daemon streams back, into files and directories.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use crate::engine::buildkit::OutputSink;
use crate::error::{Error, Result};
use crate::settings::Output;

/// Bytes between the daemon's stream and the one that unpacks it.
const PIPE: usize = 1 << 20;

/// Files and directories that are being written.
#[derive(Default)]
pub(super) struct Files {
    unpacking: Vec<(PathBuf, JoinHandle<std::io::Result<()>>)>,
}

impl Files {
    /// The exporter that serves an output, and where it writes to. A directory comes as a tar, which is unpacked here.
    pub(super) fn open(&mut self, output: &Output) -> Result<(String, OutputSink)> {
        let destination = output.destination.clone();
        match (&*output.kind, destination) {
            ("local", Some(directory)) => {
                std::fs::create_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
                let (ours, theirs) = tokio::io::duplex(PIPE);
                let into = directory.clone();
                let unpacking = tokio::task::spawn_blocking(move || unpack(SyncIoBridge::new(theirs), &into));
                self.unpacking.push((directory, unpacking));
                Ok(("tar".to_owned(), Box::new(ours)))
            }
            (kind @ ("tar" | "oci" | "docker"), None) => Ok((kind.to_owned(), Box::new(tokio::io::stdout()))),
            (kind @ ("tar" | "oci" | "docker"), Some(path)) if path == Path::new("-") => {
                Ok((kind.to_owned(), Box::new(tokio::io::stdout())))
            }
            (kind @ ("tar" | "oci" | "docker"), Some(path)) => {
                let file = std::fs::File::create(&path).map_err(|error| unwritable(&path, &error))?;
                Ok((kind.to_owned(), Box::new(tokio::fs::File::from_std(file))))
            }
            (kind, _) => {
                Err(Error::usage(format!("-o type={kind} cannot be served"))
                    .hint("local, tar, oci, docker, image and registry can"))
            }
        }
    }

    /// Waits until all is written.
    pub(super) async fn finish(self) -> Result<()> {
        for (directory, unpacking) in self.unpacking {
            let unpacked = unpacking.await.map_err(std::io::Error::other).and_then(|result| result);
            unpacked.map_err(|error| unwritable(&directory, &error))?;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::build(format!("the output {} cannot be written: {error}", path.display()))
}

/// As buildx writes a local output: owned by who runs it, with the modes and times of the image's files. The archive is the
/// daemon's own; nothing in it is let out of the directory nonetheless (tar's `unpack_in`).
fn unpack(from: impl std::io::Read, into: &Path) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    // Directories last: a read-only one could not be filled.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_dir() {
            directories.push((entry.path()?.into_owned(), entry.header().mode()?, entry.header().mtime()?));
            std::fs::create_dir_all(into.join(contained(&entry.path()?)?))?;
        } else {
            entry.unpack_in(into)?;
        }
    }
    use std::os::unix::fs::PermissionsExt;
    for (path, mode, _) in directories.into_iter().rev() {
        std::fs::set_permissions(into.join(contained(&path)?), std::fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

fn contained(path: &Path) -> std::io::Result<PathBuf> {
    use std::path::Component;
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if plain { Ok(path.to_owned()) } else { Err(std::io::Error::other(format!("the archive has the path {}", path.display()))) }
}
