//! What a build and the keeper of its daemon say to each other: a line of JSON each, over the keeper's standard input and output.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::protocol::{DiskStore, KeptDisk};
use crate::disk::{DiskLoss, SavedDisk};

/// A daemon to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonStart {
    /// The directory for all of its files besides its data.
    pub work: PathBuf,
    /// The store with its disk.
    pub store: DiskStore,
    /// The saved disk. `None` means a new one.
    pub saved: Option<SavedDisk>,
    /// The size of a new disk in bytes.
    pub size: u64,
    /// As in [`ServedDisk::mends`](crate::disk::protocol::ServedDisk).
    pub mends: bool,
    /// The chunks that the last build read.
    pub ahead: Vec<u32>,
    /// The configuration of the daemon, without its paths and its bridge.
    pub configuration: serde_json::Map<String, serde_json::Value>,
    /// The daemon's major version.
    pub major: u32,
    /// Whether commands get a network.
    pub has_network: bool,
}

/// A request to the keeper. The end of its standard input ends it, and all that it has started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeeperRequest {
    /// Starts the daemon: answered by [`KeeperReply::Started`].
    Start(Box<DaemonStart>),
    /// Stops the daemon, and lets go of its disk: answered by [`KeeperReply::Stopped`].
    Stop,
    /// Saves the disk of the stopped daemon: answered by [`KeeperReply::Saved`].
    Save,
}

/// An answer of the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeeperReply {
    /// The daemon runs; it may not answer yet.
    Started,
    /// The daemon is gone, for this reason: it ended by itself, or its disk cannot be read.
    Lost(DiskLoss),
    /// The daemon has ended, and its disk is complete.
    Stopped,
    /// The disk is in the store.
    Saved(KeptDisk),
    /// The keeper cannot do what it was asked, for this reason.
    Failed(DiskLoss),
}

/// The paths of a daemon's files.
#[derive(Debug, Clone, Copy)]
pub struct Paths<'a>(pub &'a Path);

impl Paths<'_> {
    /// The sparse local copy of the disk.
    #[must_use]
    pub fn local(self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// The directory in which the disk appears as a file.
    #[must_use]
    pub fn served(self) -> PathBuf {
        self.0.join("served")
    }

    /// The name of that file, by which `losetup` shows whose disk it is.
    #[must_use]
    pub fn disk_name(self) -> String {
        self.0.to_string_lossy().trim_start_matches('/').replace('/', "-")
    }

    /// The directory in which the disk is mounted.
    #[must_use]
    pub fn mounted(self) -> PathBuf {
        self.0.join("data")
    }

    /// The socket of the daemon.
    #[must_use]
    pub fn socket(self) -> PathBuf {
        self.0.join("docker.sock")
    }

    /// What the daemon prints.
    #[must_use]
    pub fn log(self) -> PathBuf {
        self.0.join("dockerd.log")
    }

    /// The daemon's configuration.
    #[must_use]
    pub fn configuration(self) -> PathBuf {
        self.0.join("daemon.json")
    }
}
