//! Pushes blobs to all target repositories while they still arrive, then manifests and tags.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::blobs::{PushedBlobs, Target};
use super::failure::Failure;
use super::tags::{self, TagOutcome};
use crate::domain::{Descriptor, Digest, ImageRef, RawManifest, Repository};
use crate::error::Result;
use crate::event::Events;
use crate::registry::{Error, Progress, Registries, RemoteBlob, read_blob};
use crate::transfer::{BlobSource, BytesSource};

/// Pushes to a set of repositories. Cheap to clone; dropping the last clone cancels running uploads.
#[derive(Clone)]
pub struct Pusher(Arc<Inner>);

struct Inner {
    is_cache: bool,
    registries: Registries,
    targets: Vec<Arc<Target>>,
    events: Events,
    tasks: Mutex<JoinSet<()>>,
    /// The number of running uploads.
    running: watch::Sender<usize>,
    /// The running uploads and the repositories of an earlier push: see [`Pusher::after`].
    before: Option<(watch::Receiver<usize>, Vec<Repository>)>,
}

/// An upload that runs, until it is dropped.
struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.targets.iter().map(|target| target.home.repository().to_string())).finish()
    }
}

impl Pusher {
    /// Returns a pusher to these repositories. A repository that is named twice counts once.
    #[must_use]
    pub fn new(registries: Registries, repositories: Vec<Repository>, events: Events) -> Self {
        let is_cache = repositories.iter().all(|repository| registries.is_own(repository));
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for repository in repositories {
            if !targets.iter().any(|target| *target.home.repository() == repository) {
                let label = match registries.is_own(&repository) {
                    true => "[hakobi] saving layers to the cache".to_owned(),
                    false => format!("pushing layers to {repository}"),
                };
                targets.push(Arc::new(Target::new(registries.home(&repository), label)));
            }
        }
        let (tasks, running) = Default::default();
        Self(Arc::new(Inner { is_cache, registries, targets, events, tasks, running, before: None }))
    }

    /// Lets this pusher wait with its uploads for those of another one, where it pushes to the same registry: it then finds the
    /// blobs there, or mounts them. No upload may have begun.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let Inner { is_cache, registries, targets, events, .. } = &*self.0;
        let (is_cache, registries, targets, events) = (*is_cache, registries.clone(), targets.clone(), events.clone());
        let (tasks, running) = Default::default();
        let repositories = before.0.targets.iter().map(|target| target.home.repository().clone()).collect();
        let before = Some((before.0.running.subscribe(), repositories));
        Self(Arc::new(Inner { is_cache, registries, targets, events, tasks, running, before }))
    }

    /// Returns the running uploads of an earlier push to this target's registry, and the repository to mount its blobs from.
    /// Returns `None` if there is none.
    fn pushed_before(&self, target: &Target) -> Option<(watch::Receiver<usize>, Repository)> {
        let ((running, repositories), backing) = (self.0.before.as_ref()?, target.home.backing()?);
        let mount = repositories.iter().find(|repository| repository.host == backing.host)?;
        Some((running.clone(), mount.clone()))
    }

    /// Returns whether it pushes only to the cache, so that no push has to wait for it.
    #[must_use]
    pub fn is_cache(&self) -> bool {
        self.0.is_cache
    }

    /// Returns whether every repository has the blob. Looks each blob up only once.
    ///
    /// # Errors
    /// If a registry refuses or cannot be reached.
    pub async fn has(&self, digest: &Digest) -> Result<bool> {
        let answers = try_join_all(self.0.targets.iter().map(|target| target.has(digest))).await?;
        Ok(!answers.is_empty() && answers.into_iter().all(|there| there))
    }

    /// Returns the size of a blob that every repository has in bytes, or `None` if one lacks it.
    ///
    /// # Errors
    /// If a registry refuses or cannot be reached.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let sizes = try_join_all(self.0.targets.iter().map(|target| target.size(digest))).await?;
        Ok(sizes.into_iter().collect::<Option<Vec<u64>>>().and_then(|sizes| sizes.first().copied()))
    }

    /// Returns the first of its repositories, or `None` without repositories.
    #[must_use]
    pub fn first(&self) -> Option<&Repository> {
        self.0.targets.first().map(|target| target.home.repository())
    }

    /// Reads a small blob that every repository has.
    ///
    /// # Errors
    /// If it has more than `limit` bytes, or the registry does not supply it.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        match self.0.targets.first() {
            Some(target) => Ok(read_blob(&*target.home, digest, limit).await?),
            None => Err(crate::error::Error::push("no repository to read from")),
        }
    }

    /// Returns the blobs that some repository lacks, in their order. Looks up all at once, so that [`Pusher::has`] then knows the
    /// answers.
    ///
    /// # Errors
    /// If a registry refuses or cannot be reached.
    pub async fn missing(&self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        try_join_all(self.0.targets.iter().map(|target| target.ask(&digests))).await?;
        let mut missing = Vec::new();
        for blob in blobs {
            if !self.has(&blob.digest).await? {
                missing.push(blob.clone());
            }
        }
        Ok(missing)
    }

    /// Starts to upload a blob, in the background, to every repository that lacks it. If the source is still growing, the uploads
    /// follow it. `origin` is a repository that may have the blob, to mount it from. [`Pusher::finish_blobs`] returns failures.
    pub fn upload(&self, source: Arc<dyn BlobSource>, origin: Option<Repository>) {
        self.upload_where(source, origin, None, true, |_| true);
    }

    /// Starts to upload an image's configuration, like [`Pusher::upload`] for a layer. It does not count as a layer.
    pub fn upload_config(&self, config: Bytes) {
        self.upload_where(Arc::new(BytesSource::new(config)), None, None, false, |_| true);
    }

    fn upload_where(
        &self,
        source: Arc<dyn BlobSource>,
        origin: Option<Repository>,
        mount: Option<Repository>,
        is_layer: bool,
        wanted: impl Fn(&Repository) -> bool,
    ) {
        for target in self.0.targets.iter().filter(|target| wanted(target.home.repository())) {
            let target = Arc::clone(target);
            let (source, origin, events) = (Arc::clone(&source), origin.clone(), self.0.events.clone());
            let mut mount = mount.clone().or_else(|| origin.clone());
            let (before, running) = (self.pushed_before(&target), self.running());
            self.spawn(async move {
                let _running = running;
                if let Some((mut running, repository)) = before {
                    // The push may have ended already, with its sender.
                    let _ = running.wait_for(|running| *running == 0).await;
                    mount = Some(repository);
                }
                if let Err(error) = Box::pin(upload_to(&target, &*source, is_layer, mount.as_ref(), &events)).await {
                    target.failed(error, origin);
                }
            });
        }
    }

    /// Starts to copy a blob of another repository to every target that lacks it: mounted within a registry, otherwise streamed. A
    /// target is never its own source, because another call already uploads what it lacks, and a copy would prevent that. A foreign
    /// layer, which no registry stores, is not copied.
    pub fn copy(&self, blob: &Descriptor, from: &Repository) {
        if blob.media_type.contains("foreign") || blob.media_type.contains("nondistributable") {
            return;
        }
        let home = self.0.registries.home(from);
        // A store in the same registry: the blob is mounted from the repository behind it.
        let mount = home.backing().cloned();
        let source = RemoteBlob::new(home, blob);
        self.upload_where(Arc::new(source), Some(from.clone()), mount, true, |target| target != from);
    }

    /// Waits for all uploads so far.
    ///
    /// # Errors
    /// If an upload failed; the error names all failures, and their side.
    pub async fn finish_blobs(&self) -> Result<PushedBlobs, Failure> {
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failures = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                failures.push((Error::internal("an upload ended because of a bug in hakobi"), None));
            }
        }
        let mut pushed = PushedBlobs::default();
        for target in &self.0.targets {
            let own = target.take_failures();
            if let Some(step) = target.take_step() {
                match own.first() {
                    Some((error, _)) => step.failed(error),
                    None => step.done(),
                }
            }
            failures.extend(own);
            pushed.repositories.push((target.home.repository().clone(), target.counts()));
        }
        match Failure::from_all(failures) {
            Some(failure) => Err(failure),
            None => Ok(pushed),
        }
    }

    /// Pushes an image or index: first its children, by digest, then the manifest under each tag (by its digest if a reference has
    /// no tag). It tries every tag, even if others fail. The blobs must already be there: see [`Pusher::finish_blobs`].
    pub async fn put(&self, manifest: &RawManifest, children: &[RawManifest], references: &[ImageRef]) -> Vec<TagOutcome> {
        let puts = self.0.targets.iter().map(|target| {
            let own: Vec<ImageRef> =
                references.iter().filter(|reference| reference.repository == *target.home.repository()).cloned().collect();
            async move { tags::put(&*target.home, manifest, children, own, &self.0.events).await }
        });
        let mut outcomes: Vec<TagOutcome> = join_all(puts).await.into_iter().flatten().collect();
        outcomes.sort_by_key(|outcome| references.iter().position(|reference| *reference == outcome.reference));
        outcomes
    }

    fn running(&self) -> Running {
        self.0.running.send_modify(|running| *running += 1);
        Running(self.0.running.clone())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

async fn upload_to(
    target: &Target,
    source: &dyn BlobSource,
    is_layer: bool,
    mount: Option<&Repository>,
    events: &Events,
) -> Result<(), Error> {
    let known = source.known();
    if let Some(identity) = &known {
        if !target.begin(&identity.digest) {
            return Ok(());
        }
        if target.has(&identity.digest).await? {
            target.count(|counts| counts.already_there += u64::from(is_layer));
            return Ok(());
        }
    }
    let _slot = target.slots.acquire().await.map_err(|_| Error::internal("no more uploads are possible"))?;
    // Each upload would wait for the unreachable registry in turn, although the push has already failed.
    if target.is_lost() {
        return Ok(());
    }
    let step = target.step(|| events.step(target.label.clone()));
    let name = match &known {
        Some(identity) => format!("layer {}", identity.digest),
        None => format!("new layer {:04x}", rand::random::<u16>()),
    };
    let total = known.as_ref().map_or(0, |identity| identity.size);
    let progress: Progress = {
        let (step, name) = (step.clone(), name.clone());
        let told = Mutex::new(None::<std::time::Instant>);
        Arc::new(move |current| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            // A display does not draw faster than this.
            if told.is_none_or(|told| told.elapsed() > std::time::Duration::from_millis(100)) {
                *told = Some(std::time::Instant::now());
                step.progress(&name, current, total, false);
            }
        })
    };
    let uploaded = target.home.upload(source, mount, progress).await?;
    step.progress(&name, uploaded.identity.size, uploaded.identity.size, true);
    target.arrived(&uploaded.identity);
    target.begin(&uploaded.identity.digest);
    target.count(|counts| {
        if uploaded.mounted {
            counts.mounted += u64::from(is_layer);
        } else {
            counts.pushed += u64::from(is_layer);
            counts.bytes += uploaded.sent;
        }
    });
    Ok(())
}
