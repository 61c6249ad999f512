//! The interface for images that are pushed to the loopback registry.

use async_trait::async_trait;

use crate::domain::{Digest, RawManifest};
use crate::transfer::{Identity, Spool};

/// Receives what the daemon pushes.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Returns the size in bytes of a blob that need not be sent, or `None`.
    async fn has(&self, digest: &Digest) -> Option<u64>;

    /// Notes that a blob begins to arrive.
    async fn arriving(&self, blob: Spool);

    /// Notes that a blob has arrived completely and has the announced digest.
    async fn arrived(&self, identity: Identity, blob: Spool);

    /// Takes a manifest, under a tag or its digest.
    ///
    /// # Errors
    /// The reason for the daemon if the manifest is not accepted.
    async fn manifest(&self, name: &str, reference: &str, manifest: RawManifest) -> Result<(), String>;
}
