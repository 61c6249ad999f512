//! Images of hakobi's own that a run has loaded into the daemon.

use std::collections::HashMap;
use std::sync::OnceLock;

use tokio::sync::Mutex;

use crate::domain::Digest;
use crate::engine::BorrowedName;
use crate::local_registry::NOWHERE;
use crate::transfer::Scratch;

/// Images of a run that were loaded.
pub struct Loaded {
    /// Repository of all of them; its word is this run's own.
    pub repository: String,
    /// Remembers that word for the case that this run is killed.
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

    /// Which image of ours a name in a graph stands for.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        format!("sha256:{}", name.strip_prefix(&self.repository)?.strip_prefix(':')?).parse().ok()
    }
}
