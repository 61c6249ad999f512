//! The blobs of one repository during a push: each is uploaded once, and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use crate::domain::{Digest, Repository};
use crate::event::Step;
use crate::registry::{Error, Home, Kind};
use crate::transfer::Identity;

/// The number of blobs that were pushed to all repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushedBlobs {
    /// The numbers of each repository, in the order in which the repositories were named.
    pub repositories: Vec<(Repository, RepositoryBlobs)>,
}

impl PushedBlobs {
    /// Returns the sum over all repositories.
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

/// The number of blobs that were pushed to one repository. Only layers are counted, but the bytes include configurations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepositoryBlobs {
    /// Layers that were uploaded.
    pub pushed: u64,
    /// Layers that were mounted from another repository of the same registry, without an upload.
    pub mounted: u64,
    /// Layers that the repository already had.
    pub already_there: u64,
    /// Uploaded bytes, including configurations.
    pub bytes: u64,
}

/// One target repository.
pub(super) struct Target {
    pub(super) home: Arc<dyn Home>,
    /// The name of an upload on the display.
    pub(super) label: String,
    /// Limits how many of its uploads run at once.
    pub(super) slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The sizes of blobs in the repository; each is looked up once.
    there: HashMap<Digest, Arc<OnceCell<Option<u64>>>>,
    /// Blobs that were counted or are being uploaded, so that none is uploaded twice.
    begun: std::collections::HashSet<Digest>,
    counts: RepositoryBlobs,
    /// Failures, with the repository that the blob was copied from.
    failures: Vec<(Error, Option<Repository>)>,
    step: Option<Step>,
}

/// More uploads at once only make each of them slower.
const UPLOADS_AT_ONCE: usize = 8;

impl Target {
    pub(super) fn new(home: Arc<dyn Home>, label: String) -> Self {
        Self { home, label, slots: Semaphore::new(UPLOADS_AT_ONCE), state: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the size of a blob that the repository has in bytes, or `None` if it lacks it. Looks it up only once.
    ///
    /// # Errors
    /// If the registry does not answer.
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let cell = self.with(|state| Arc::clone(state.there.entry(digest.clone()).or_default()));
        let ask = || async { Ok(self.home.sizes(std::slice::from_ref(digest)).await?.remove(digest)) };
        cell.get_or_try_init(ask).await.copied()
    }

    /// Returns whether the repository has a blob.
    ///
    /// # Errors
    /// If the registry does not answer.
    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Looks up many blobs at once and stores the answers.
    ///
    /// # Errors
    /// If the registry does not answer.
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

    /// Notes that the repository has the blob now.
    pub(super) fn arrived(&self, identity: &Identity) {
        let cell = OnceCell::from(Some(identity.size));
        self.with(|state| state.there.insert(identity.digest.clone(), Arc::new(cell)));
    }

    /// Starts a blob. Returns `false` if it was started before.
    pub(super) fn begin(&self, digest: &Digest) -> bool {
        self.with(|state| state.begun.insert(digest.clone()))
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut RepositoryBlobs)) {
        self.with(|state| change(&mut state.counts));
    }

    pub(super) fn failed(&self, error: Error, from: Option<Repository>) {
        self.with(|state| state.failures.push((error, from)));
    }

    /// Returns whether the registry was given up after a network error: no further uploads start.
    pub(super) fn is_lost(&self) -> bool {
        self.with(|state| state.failures.iter().any(|(error, _)| error.kind == Kind::Network))
    }

    pub(super) fn counts(&self) -> RepositoryBlobs {
        self.with(|state| state.counts)
    }

    pub(super) fn take_failures(&self) -> Vec<(Error, Option<Repository>)> {
        self.with(|state| std::mem::take(&mut state.failures))
    }

    /// Returns the step that shows the uploads; the first upload begins it.
    pub(super) fn step(&self, begin: impl FnOnce() -> Step) -> Step {
        self.with(|state| state.step.get_or_insert_with(begin).clone())
    }

    pub(super) fn take_step(&self) -> Option<Step> {
        self.with(|state| state.step.take())
    }
}
