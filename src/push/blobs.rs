//! The blobs of one repository while they are pushed: each once, and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use crate::domain::{Digest, Repository};
use crate::event::Step;
use crate::registry::{Error, Home, Kind};
use crate::transfer::Identity;

/// What was pushed to all repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushedBlobs {
    /// By repository, in the order they were named in.
    pub repositories: Vec<(Repository, RepositoryBlobs)>,
}

impl PushedBlobs {
    /// All repositories together.
    #[must_use]
    pub fn total(&self) -> RepositoryBlobs {
        self.repositories.iter().fold(RepositoryBlobs::default(), |sum, (_, one)| RepositoryBlobs {
            pushed: sum.pushed + one.pushed,
            mounted: sum.mounted + one.mounted,
            already_there: sum.already_there + one.already_there,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// What was pushed to one repository. Only layers are counted; the bytes are those of configurations too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepositoryBlobs {
    /// Layers whose bytes were sent.
    pub pushed: u64,
    /// Layers taken over from another repository of the same registry, without sending them.
    pub mounted: u64,
    /// Layers that were there.
    pub already_there: u64,
    /// Bytes sent, of configurations too.
    pub bytes: u64,
}

/// One repository that is pushed to.
pub(super) struct Target {
    pub(super) home: Arc<dyn Home>,
    /// What an upload to it is called on the display.
    pub(super) label: String,
    /// How many of its uploads run at once.
    pub(super) slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The size of a blob that is there, asked once.
    there: HashMap<Digest, Arc<OnceCell<Option<u64>>>>,
    /// Blobs that were counted or are on their way, so that none is sent twice.
    begun: std::collections::HashSet<Digest>,
    counts: RepositoryBlobs,
    /// With the repository that the blob was to be copied from.
    failures: Vec<(Error, Option<Repository>)>,
    step: Option<Step>,
}

/// More at once than a registry likes only makes each slower.
const UPLOADS_AT_ONCE: usize = 8;

impl Target {
    pub(super) fn new(home: Arc<dyn Home>, label: String) -> Self {
        Self { home, label, slots: Semaphore::new(UPLOADS_AT_ONCE), state: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The size of a blob that the repository has, in bytes. The answer is kept.
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let cell = self.with(|state| Arc::clone(state.there.entry(digest.clone()).or_default()));
        let ask = || async { Ok(self.home.sizes(std::slice::from_ref(digest)).await?.remove(digest)) };
        cell.get_or_try_init(ask).await.copied()
    }

    /// Whether the repository has a blob.
    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Keeps answers for many blobs at once.
    pub(super) async fn ask(&self, digests: &[Digest]) -> Result<(), Error> {
        let open: Vec<Digest> = self.with(|state| {
            digests.iter().filter(|digest| state.there.get(digest).is_none_or(|cell| !cell.initialized())).cloned().collect()
        });
        if open.is_empty() {
            return Ok(());
        }
        let mut sizes = self.home.sizes(&open).await?;
        for digest in open {
            let size = sizes.remove(&digest);
            let cell = self.with(|state| Arc::clone(state.there.entry(digest).or_default()));
            let _ = cell.set(size);
        }
        Ok(())
    }

    /// The blob is there now.
    pub(super) fn arrived(&self, identity: &Identity) {
        let cell = OnceCell::from(Some(identity.size));
        self.with(|state| state.there.insert(identity.digest.clone(), Arc::new(cell)));
    }

    /// Takes on a blob. `false` where it was taken on before.
    pub(super) fn begin(&self, digest: &Digest) -> bool {
        self.with(|state| state.begun.insert(digest.clone()))
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut RepositoryBlobs)) {
        self.with(|state| change(&mut state.counts));
    }

    pub(super) fn failed(&self, error: Error, from: Option<Repository>) {
        self.with(|state| state.failures.push((error, from)));
    }

    /// Whether the registry was given up: what has not begun to go there is not begun.
    pub(super) fn is_lost(&self) -> bool {
        self.with(|state| state.failures.iter().any(|(error, _)| error.kind == Kind::Network))
    }

    pub(super) fn counts(&self) -> RepositoryBlobs {
        self.with(|state| state.counts)
    }

    pub(super) fn take_failures(&self) -> Vec<(Error, Option<Repository>)> {
        self.with(|state| std::mem::take(&mut state.failures))
    }

    /// The step that shows the uploads, begun with the first of them.
    pub(super) fn step(&self, begin: impl FnOnce() -> Step) -> Step {
        self.with(|state| state.step.get_or_insert_with(begin).clone())
    }

    pub(super) fn take_step(&self) -> Option<Step> {
        self.with(|state| state.step.take())
    }
}
