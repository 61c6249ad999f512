//! The record of a daemon's disk.

use serde::{Deserialize, Serialize};

use super::list::CHUNK;
use super::saved::SavedDisk;

/// The most chunks of a disk: of 1 TiB.
const MOST_CHUNKS: u64 = (1 << 40) / CHUNK as u64;

/// The disk of a daemon that built an image, as it was after a clean end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// The version of Docker, and the configuration of its data. To another daemon, the disk is of no use.
    pub daemon: String,
    /// The disk. `None` if a build has thrown it away, and the next one is to begin a new one.
    pub disk: Option<SavedDisk>,
    /// The size of its chunks that are not empty, in bytes.
    pub used: u64,
    /// The chunks that the last build read, in the order of their first reads.
    pub reads: Vec<u32>,
    /// How many builds it has seen.
    pub builds: u64,
    /// When it was saved, in seconds of the Unix epoch.
    pub saved: u64,
}

impl DiskRecord {
    /// Returns whether it is plausible by itself.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let chunks = self.disk.as_ref().map_or(0, |disk| disk.chunks);
        chunks <= MOST_CHUNKS && self.reads.len() as u64 <= chunks
    }
}
