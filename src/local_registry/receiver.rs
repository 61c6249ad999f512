//! Who takes what is pushed to the loopback registry.

use async_trait::async_trait;

use crate::domain::{Digest, RawManifest};
use crate::transfer::{Identity, Spool};

/// Takes what the daemon pushes.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// The size of a blob that need not be sent, in bytes.
    async fn has(&self, digest: &Digest) -> Option<u64>;

    /// A blob begins to arrive.
    async fn arriving(&self, blob: Spool);

    /// A blob has arrived whole and is what the daemon says it is.
    async fn arrived(&self, identity: Identity, blob: Spool);

    /// A manifest, under a tag or its digest. What is returned is told to the daemon as its reason.
    async fn manifest(&self, name: &str, reference: &str, manifest: RawManifest) -> Result<(), String>;
}
