//! What a shelf gives away: the manifests that were read or put by its name in this run, and what these name. Blobs lie side
//! by side in a store, whoever's they are.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::domain::{Digest, RawManifest, media_type};

/// Manifests of a shelf, and what they name.
#[derive(Default)]
pub(super) struct Offered(Mutex<State>);

#[derive(Default)]
struct State {
    /// Those that were put or read in this run: the daemon asks for them again and again.
    manifests: HashMap<Digest, RawManifest>,
    named: HashSet<Digest>,
    /// Blobs of this run that no store has.
    held: HashMap<Digest, Bytes>,
    /// Manifests that an index names, until someone looks into them.
    unread: Vec<Digest>,
}

impl Offered {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest that was put or read.
    pub(super) fn manifest(&self, digest: &Digest) -> Option<RawManifest> {
        self.state().manifests.get(digest).cloned()
    }

    /// Offers a small blob that is made for this run only.
    pub(super) fn hold(&self, blob: Bytes) {
        self.state().held.insert(Digest::hash(&blob), blob);
    }

    /// A blob that is made for this run only.
    pub(super) fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.state().held.get(digest).cloned()
    }

    /// Offers a manifest and what it names.
    pub(super) fn add(&self, manifest: &RawManifest) {
        let (named, unread): (Vec<_>, Vec<_>) = if manifest.is_index() {
            let below = manifest.index().map(|index| index.manifests).unwrap_or_default();
            let is_manifest =
                |kind: &str| media_type::is_index(kind) || matches!(kind, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
            let unread = below.iter().filter(|child| is_manifest(&child.media_type)).map(|child| child.digest.clone()).collect();
            (below.into_iter().map(|child| child.digest).collect(), unread)
        } else {
            let image = manifest.manifest().map(|image| image.layers.into_iter().chain([image.config]).collect());
            (image.unwrap_or_else(|_| Vec::new()).into_iter().map(|blob| blob.digest).collect(), Vec::new())
        };
        let digest = manifest.digest();
        let mut state = self.state();
        state.named.extend(named);
        state.named.insert(digest.clone());
        if state.manifests.insert(digest, manifest.clone()).is_none() {
            state.unread.extend(unread);
        }
    }

    /// Whether it is offered, as far as is known.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.state().named.contains(digest)
    }

    /// A manifest that nobody looked into yet; it is not told again.
    pub(super) fn unread(&self) -> Option<Digest> {
        let mut state = self.state();
        loop {
            let digest = state.unread.pop()?;
            if !state.manifests.contains_key(&digest) {
                return Some(digest);
            }
        }
    }

    /// One that could not be looked into for now.
    pub(super) fn put_back(&self, digest: Digest) {
        self.state().unread.push(digest);
    }
}
