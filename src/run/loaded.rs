//! hakobi's own images that a run has loaded into the daemon.

use std::collections::HashMap;
use std::sync::OnceLock;

use tokio::sync::Mutex;

use crate::domain::Digest;
use crate::engine::BorrowedName;
use crate::local_registry::NOWHERE;
use crate::transfer::Scratch;

/// The loaded images of a run.
pub struct Loaded {
    /// The repository of all these images; a secret path in it belongs to this run.
    pub repository: String,
    /// Records that word, in case this run is killed.
    pub scratch: OnceLock<Option<Scratch>>,
    pub names: Mutex<HashMap<Digest, BorrowedName>>,
}

impl Default for Loaded {
    fn default() -> Self {
        let repository = format!("{NOWHERE}/{:032x}", rand::random::<u128>());
        Self { repository, scratch: OnceLock::new(), names: Mutex::default() }
    }
}

impl Loaded {
    pub fn name(&self, digest: &Digest) -> String {
        format!("{}:{}", self.repository, digest.hex())
    }

    /// Returns the digest of the loaded image that has this name, or `None` if the name is not of this run.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        format!("sha256:{}", name.strip_prefix(&self.repository)?.strip_prefix(':')?).parse().ok()
    }
}
