//! What the keeper of a daemon and the process that serves its disk say to each other: a line of JSON each, over the process's
//! standard input and output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::DiskLoss;
use super::saved::SavedDisk;
use crate::settings::{S3Settings, StoreLocation};

/// A store that can have disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskStore {
    /// A directory.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Settings),
}

impl DiskStore {
    /// Returns the store at a location. Returns `None` for a registry: it would need a request or two for each chunk, and a manifest
    /// that names thousands of them.
    #[must_use]
    pub fn new(location: &StoreLocation) -> Option<Self> {
        match location {
            StoreLocation::Directory(directory) => Some(Self::Directory(directory.clone())),
            StoreLocation::S3(settings) => Some(Self::S3(settings.clone())),
            StoreLocation::Registry(_) => None,
        }
    }

    /// Returns its location.
    #[must_use]
    pub fn location(self) -> StoreLocation {
        match self {
            Self::Directory(directory) => StoreLocation::Directory(directory),
            Self::S3(settings) => StoreLocation::S3(settings),
        }
    }
}

/// A disk to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedDisk {
    /// The store that has it.
    pub store: DiskStore,
    /// The saved disk. `None` means a new one.
    pub saved: Option<SavedDisk>,
    /// The size of a new disk in bytes.
    pub size: u64,
    /// Whether an earlier disk was bad, so that all chunks are written, also those that the store has.
    pub mends: bool,
    /// The chunks to fetch before anybody reads them, in this order.
    pub ahead: Vec<u32>,
    /// The path of the local copy, which must not exist.
    pub local: PathBuf,
    /// An empty directory, in which the disk appears as a file.
    pub directory: PathBuf,
    /// The name of that file.
    pub name: String,
}

/// A request to the process. The end of its standard input ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRequest {
    /// Serves a disk, once: answered by [`DiskReply::Served`].
    Serve(Box<ServedDisk>),
    /// Nobody uses the disk any more, after [`DiskReply::Lost`].
    Abandoned,
    /// Saves the disk, which nobody uses any more: answered by [`DiskReply::Saved`].
    Save,
}

/// An answer of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskReply {
    /// The disk is there as a file.
    Served,
    /// Bytes of the disk cannot be had.
    Lost(DiskLoss),
    /// The disk is in the store.
    Saved(KeptDisk),
    /// The process cannot do what it was asked.
    Failed(DiskLoss),
}

/// A disk as it was saved, and what its use cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDisk {
    /// The saved disk.
    pub saved: SavedDisk,
    /// The chunks that were read, in the order of their first reads.
    pub reads: Vec<u32>,
    /// The bytes that the store lacked.
    pub uploaded: u64,
    /// The size of the chunks that are not empty, in bytes.
    pub used: u64,
}
