//! The endpoint's receiver: it tells the daemon which blobs it need not send, and uploads the others to registries and store in one
//! pass.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use super::known::Known;
use super::tag::TAG;
use super::transcode::{self, Format};
use crate::docker_archive::StoredLayer;
use crate::domain::{Descriptor, DiffId, Digest, Hasher, Likeness, Made, RawManifest, Repository, media_type};
use crate::error::{Error, Result};
use crate::local_registry::Receiver;
use crate::push::Pusher;
use crate::settings::Compression;
use crate::transfer::compress::plain;
use crate::transfer::{BlobSource, ByteStream, Identity, Spool};

/// A blob larger than this, in bytes, is uploaded to the registries while it arrives. A smaller one waits until the manifest
/// identifies it. The reason: an overlay2 daemon compresses layers below 10 MB again without asking whether they are known (moby
/// `getMaxMountAndExistenceCheckAttempts`). hakobi drops those.
const STREAM_FROM: u64 = 11 << 20;

/// How long the daemon waits for the cache's answer about a blob.
const SOON: Duration = Duration::from_secs(5);

/// Receives images from the daemon for registries, for a store, or for both.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

pub(super) struct Inner {
    pushers: Vec<Pusher>,
    pub(super) compression: Compression,
    directory: PathBuf,
    state: Mutex<State>,
    /// Whether the cache did not answer in time: hakobi does not ask it again during the hand-over.
    slow_cache: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) known: Known,
    /// Blobs that arrived.
    pub(super) blobs: HashMap<Digest, Blob>,
    /// Placeholder layers: they are not uploaded.
    pub(super) placeholder_layers: HashMap<Digest, StoredLayer>,
    /// Configurations from an archive.
    pub(super) configs: HashMap<Digest, Bytes>,
    /// The source that is uploaded for each blob, by its spool, because the digest is known only later.
    forwarded: HashMap<u64, Arc<dyn BlobSource>>,
    /// By the image's name, then by tag or digest.
    pub(super) manifests: HashMap<String, HashMap<String, RawManifest>>,
    /// The digests that the daemon reported for its images, by name.
    pub(super) made: HashMap<String, Made>,
    /// Whether images are identified by their configurations, so that each layer must be compared with these.
    compares: bool,
    /// The diff IDs of arrived blobs, by their spools.
    diff_ids: HashMap<u64, Arc<OnceCell<DiffId>>>,
}

impl State {
    /// Notes the diff ID of a blob.
    pub(super) fn is_uncompressed(&mut self, blob: &Spool, diff_id: &DiffId) {
        self.diff_ids.insert(blob.id(), Arc::new(OnceCell::new_with(Some(diff_id.clone()))));
    }
}

#[derive(Clone)]
pub(super) struct Blob {
    pub(super) spool: Spool,
    pub(super) identity: Identity,
}

impl Intake {
    /// Returns an intake for these pushers, each of which fails on its own. Arriving blobs are stored in `directory`.
    #[must_use]
    pub fn new(pushers: Vec<Pusher>, known: Known, compression: Compression, directory: PathBuf) -> Self {
        let state = Mutex::new(State { known, ..State::default() });
        Self(Arc::new(Inner { pushers, compression, directory, state, slow_cache: AtomicBool::new(false) }))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Opens a blob that arrived, by its digest on arrival or after recompression. Returns `None` if it did not arrive.
    ///
    /// # Errors
    /// If it cannot be read again.
    pub async fn arrived(&self, digest: &Digest) -> std::io::Result<Option<ByteStream>> {
        let source: Option<Arc<dyn BlobSource>> = {
            let state = self.0.state();
            let came = state.blobs.get(digest).map(|blob| Arc::new(blob.spool.clone()) as _);
            let is_it = |source: &&Arc<dyn BlobSource>| source.known().is_some_and(|known| known.digest == *digest);
            came.or_else(|| state.forwarded.values().find(is_it).cloned())
        };
        match source {
            Some(source) => Ok(Some(source.open(0).await?)),
            None => Ok(None),
        }
    }

    /// Notes a placeholder layer, which only the daemon needs as a base: it need not be sent, and is not uploaded.
    pub fn pass_over(&self, layer: &Descriptor, diff_id: &DiffId) {
        let stored = StoredLayer { diff_id: diff_id.clone(), descriptor: layer.clone() };
        self.0.state().placeholder_layers.insert(layer.digest.clone(), stored);
    }

    /// Prepares for an image of this name, or for another attempt: forgets what arrived under it before.
    pub fn begin(&self, name: &str) {
        let mut state = self.0.state();
        state.manifests.remove(name);
        state.made.remove(name);
    }

    /// Notes what the daemon made: nothing else is accepted under this name. `by_config` if the daemon identifies the image only by
    /// its configuration, as overlay2 engines do.
    pub fn expect(&self, name: &str, made: Made, by_config: bool) {
        let mut state = self.0.state();
        state.compares |= by_config;
        // An image that arrived before hakobi asked the daemon for it is not the daemon's.
        if by_config && let Some(own) = state.manifests.get_mut(name) {
            own.retain(|_, manifest| !made.diff_ids.is_empty() || made.likeness(manifest) != Likeness::None);
        }
        state.made.insert(name.to_owned(), made);
    }

    /// Notes further images that registries have.
    pub fn learn(&self, learn: impl FnOnce(&mut Known)) {
        learn(&mut self.0.state().known);
    }
}

impl Inner {
    /// Returns the directory of arriving blobs.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the diff ID of a blob that has arrived or is arriving. It is computed once.
    ///
    /// # Errors
    /// If the blob cannot be read.
    pub(super) async fn diff_id(&self, spool: &Spool) -> std::io::Result<DiffId> {
        let cell = Arc::clone(self.state().diff_ids.entry(spool.id()).or_default());
        let found = cell.get_or_try_init(|| async {
            let mut bytes = plain(spool.open(0).await?).await?;
            let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 256 << 10]);
            loop {
                match bytes.read(&mut buffer).await? {
                    0 => return Ok(hasher.diff_id()),
                    read => hasher.update(&buffer[..read]),
                }
            }
        });
        found.await.cloned()
    }

    /// Uploads a blob to the registries, once, even while it still arrives. Returns the source that is uploaded.
    ///
    /// # Errors
    /// If the blob cannot be read.
    pub(super) async fn forward(&self, spool: &Spool) -> std::io::Result<Arc<dyn BlobSource>> {
        let format = Format::detect(&transcode::head(spool, 4).await?);
        let source: Arc<dyn BlobSource> = {
            let mut state = self.state();
            if let Some(source) = state.forwarded.get(&spool.id()) {
                return Ok(Arc::clone(source));
            }
            let source = if format.differs_from(self.compression) {
                transcode::transcode(spool.clone(), format, self.compression, &self.directory)?
            } else {
                Arc::new(spool.clone())
            };
            state.forwarded.insert(spool.id(), Arc::clone(&source));
            source
        };
        for pusher in &self.pushers {
            pusher.upload(Arc::clone(&source), None);
        }
        Ok(source)
    }

    /// Copies a blob from a repository to each target that lacks it, without the daemon.
    pub(super) fn copy(&self, blob: &Descriptor, from: &Repository) {
        for pusher in &self.pushers {
            pusher.copy(blob, from);
        }
    }

    /// Looks up all blobs at once, so that later answers are immediate. A fault occurs again, and is reported, when a blob is used.
    pub(super) async fn ask(&self, blobs: &[Descriptor]) {
        join_all(self.pushers.iter().map(|pusher| self.soon(pusher, pusher.missing(blobs)))).await;
    }

    /// Returns a target's answer, or `None` after a fault. The cache must answer soon, because a push does not wait for the cache.
    async fn soon<T>(&self, pusher: &Pusher, answer: impl Future<Output = Result<T>>) -> Option<T> {
        if !pusher.is_cache() {
            return answer.await.ok();
        }
        if self.slow_cache.load(Ordering::Relaxed) {
            return None;
        }
        match tokio::time::timeout(SOON, answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                self.slow_cache.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// Returns the size of a blob that one of the targets has, and copies it to the others. Returns `None` if none has it.
    async fn found(&self, digest: &Digest) -> Option<u64> {
        for pusher in &self.pushers {
            // After a fault, the daemon sends the blob.
            let size = self.soon(pusher, pusher.size(digest)).await.flatten();
            let Some((size, from)) = size.zip(pusher.first()) else { continue };
            self.copy(&Descriptor::new(media_type::OCI_LAYER_GZIP, digest.clone(), size), from);
            return Some(size);
        }
        None
    }

    /// Reads a small blob that one of the targets has.
    ///
    /// # Errors
    /// If none of them supplies it.
    pub(super) async fn read(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let mut result = Err(Error::push("no repository to read from"));
        for pusher in &self.pushers {
            result = pusher.read(digest, limit).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

#[async_trait]
impl Receiver for Intake {
    async fn has(&self, digest: &Digest) -> Option<u64> {
        let known = {
            let state = self.0.state();
            if let Some(blob) = state.blobs.get(digest) {
                return Some(blob.identity.size);
            }
            if let Some(stored) = state.placeholder_layers.get(digest) {
                return Some(stored.descriptor.size);
            }
            state.known.blob(digest).cloned()
        };
        match known {
            Some((descriptor, from)) => {
                self.0.copy(&descriptor, &from);
                Some(descriptor.size)
            }
            None => self.0.found(digest).await,
        }
    }

    async fn arriving(&self, blob: Spool) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            if blob.grown_to(STREAM_FROM).await {
                // A fault occurs again, and is reported, when the image is prepared.
                let _ = inner.forward(&blob).await;
                let compares = inner.state().compares;
                if compares {
                    let _ = inner.diff_id(&blob).await;
                }
            }
        });
    }

    async fn arrived(&self, identity: Identity, blob: Spool) {
        self.0.state().blobs.insert(identity.digest.clone(), Blob { spool: blob, identity });
    }

    async fn manifest(&self, name: &str, reference: &str, manifest: RawManifest) -> Result<(), String> {
        let mut state = self.0.state();
        if let Some(made) = state.made.get(name).filter(|_| reference == TAG)
            && made.diff_ids.is_empty()
            && made.likeness(&manifest) == Likeness::None
        {
            return Err("this is not the image that the build produced".to_owned());
        }
        let own = state.manifests.entry(name.to_owned()).or_default();
        // Daemons push an image again that did not arrive, but never another image.
        if own.get(reference).is_some_and(|first| first.digest() != manifest.digest()) {
            return Err("another image was pushed under this name".to_owned());
        }
        own.insert(manifest.digest().to_string(), manifest.clone());
        own.insert(reference.to_owned(), manifest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::event::Events;
    use crate::registry::{self, Home, Progress, Put, Registries, Source, Uploaded};
    use crate::settings::{PushSettings, RegistrySettings};

    /// A cache that never answers.
    struct Silent(Repository);

    #[async_trait]
    impl Source for Silent {
        fn repository(&self) -> &Repository {
            &self.0
        }

        async fn manifest(&self, _: &str) -> registry::Result<Option<RawManifest>> {
            std::future::pending().await
        }

        async fn open_blob(&self, _: &Digest, _: Option<u64>, _: u64) -> registry::Result<ByteStream> {
            std::future::pending().await
        }
    }

    #[async_trait]
    impl Home for Silent {
        async fn sizes(&self, _: &[Digest]) -> registry::Result<HashMap<Digest, u64>> {
            std::future::pending().await
        }

        async fn upload(&self, _: &dyn BlobSource, _: Option<&Repository>, _: Progress) -> registry::Result<Uploaded> {
            std::future::pending().await
        }

        async fn put_manifest(&self, _: &RawManifest, _: &str) -> registry::Result<Put> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_daemon_does_not_wait_for_a_silent_cache() {
        let registries = Registries::new(&RegistrySettings::default(), Events::none());
        let repository = "127.0.0.1:1/cache/0/app:latest".parse::<crate::domain::ImageRef>().expect("a name").repository;
        registries.stand_in(Arc::new(Silent(repository.clone())));
        let pusher = Pusher::new(registries, vec![repository], Events::none());
        let compression = PushSettings::default().compression;
        let intake = Intake::new(vec![pusher], Known::default(), compression, PathBuf::new());
        let began = Instant::now();
        for number in 0_u8..20 {
            assert_eq!(intake.has(&Digest::hash(&[number])).await, None);
        }
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
}
