//! The objects that a cache repository may serve. These are the manifests that were read or written under its name in this run, and
//! the blobs that these name. In a store, the blobs of all scopes are side by side.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::domain::{Digest, RawManifest, media_type};

/// Manifests of a cache repository, and the blobs that they name.
#[derive(Default)]
pub(super) struct Offered(Mutex<State>);

#[derive(Default)]
struct State {
    /// Manifests that were written or read in this run, because the daemon requests them again and again.
    manifests: HashMap<Digest, RawManifest>,
    named: HashSet<Digest>,
    /// Blobs of this run that no store has.
    held: HashMap<Digest, Bytes>,
    /// Manifests that an index names and that hakobi has not read yet.
    unread: Vec<Digest>,
}

impl Offered {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a manifest that was written or read, or `None`.
    pub(super) fn manifest(&self, digest: &Digest) -> Option<RawManifest> {
        self.state().manifests.get(digest).cloned()
    }

    /// Offers a small blob that exists only in this run.
    pub(super) fn hold(&self, blob: Bytes) {
        self.state().held.insert(Digest::hash(&blob), blob);
    }

    /// Returns a blob that exists only in this run, or `None`.
    pub(super) fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.state().held.get(digest).cloned()
    }

    /// Offers a manifest and everything that it names.
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

    /// Returns whether this object is offered, as far as is known.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.state().named.contains(digest)
    }

    /// Takes a manifest that hakobi has not read yet, or `None` if there is none.
    pub(super) fn unread(&self) -> Option<Digest> {
        let mut state = self.state();
        loop {
            let digest = state.unread.pop()?;
            if !state.manifests.contains_key(&digest) {
                return Some(digest);
            }
        }
    }

    /// Puts back a manifest that hakobi could not read now.
    pub(super) fn put_back(&self, digest: Digest) {
        self.state().unread.push(digest);
    }
}
