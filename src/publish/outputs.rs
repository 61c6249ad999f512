//! `-o` of other types: writes the daemon's output streams into files and directories.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use crate::engine::buildkit::OutputSink;
use crate::error::{Error, Result};
use crate::settings::Output;

/// Buffer size between the daemon's stream and the unpacker, in bytes.
const PIPE: usize = 1 << 20;

/// Files and directories that hakobi is writing.
#[derive(Default)]
pub struct Files {
    unpacking: Vec<(PathBuf, JoinHandle<std::io::Result<()>>)>,
}

impl Files {
    /// Returns the exporter for an output, and the sink for its stream. A directory comes as a tar, which hakobi unpacks.
    ///
    /// # Errors
    /// If the file or directory cannot be created.
    pub fn open(&mut self, output: &Output) -> Result<(String, OutputSink)> {
        let destination = output.destination.clone();
        match (&*output.kind, destination) {
            ("local", Some(directory)) => {
                std::fs::create_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
                let (ours, theirs) = tokio::io::duplex(PIPE);
                let into = directory.clone();
                let unpacking = tokio::task::spawn_blocking(move || super::unpack::unpack(SyncIoBridge::new(theirs), &into));
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
                Err(Error::usage(format!("-o type={kind} is not supported"))
                    .hint("use local, tar, oci, docker, image or registry"))
            }
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// If a directory cannot be written.
    pub async fn finish(self) -> Result<()> {
        for (directory, unpacking) in self.unpacking {
            let unpacked = unpacking.await.map_err(std::io::Error::other).and_then(|result| result);
            unpacked.map_err(|error| unwritable(&directory, &error))?;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::build(format!("failed to write the output {}: {error}", path.display()))
}
