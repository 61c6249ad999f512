//! The store of a run: opens it and serves it to the daemon.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use crate::cache::fault::cache_fault;
use crate::cache::keys;
use crate::cache::layer_index::index_layer;
use crate::cache::layout::{Layout, open, write_format};
use crate::cache::uses::save_uses;
use crate::disk::DiskRecord;
use crate::domain::{Digest, ImageRef, Repository};
use crate::engine::buildkit::{ContentSource, ContentSources};
use crate::error::Kind;
use crate::handover::{KnownImage, load_stages};
use crate::hidden::Hidden;
use crate::local_registry::{Address, CacheRepository, Endpoint, Served, Transferred};
use crate::mounts::record::MountsRecord;
use crate::output::RunReport;
use crate::plan::{ColdRecord, DaemonRecord, Inputs, RecordKey, Records, RunsRecord};
use crate::registry::{Home as _, Registries, Source as _};
use crate::settings::{BuildSettings, CacheMode, CacheSettings, StoreLocation};
use crate::store::{Blobs, Error, Fault, Name, RegistryOptions, Result};
use crate::transfer::{ByteStream, Scratch};

/// How long a store may take for its first answer. A job should not wait for an unreachable store.
pub const FIRST_LOOK: Duration = Duration::from_secs(30);

/// The store of a run, with its scopes as repositories of a loopback registry.
pub struct CacheSession {
    pub endpoint: Endpoint,
    pub blobs: Blobs,
    /// The own scope first, then its fallbacks.
    pub repositories: Vec<CacheRepository>,
    /// The tag of the image's index in each scope.
    pub tag: String,
    pub writes: bool,
    pub new: bool,
    pub begun: OnceCell<()>,
    /// The base images whose layers pass from a registry to the daemon.
    pub passing: OnceLock<Passing>,
    /// Values that no record may contain.
    pub hidden: Hidden,
}

/// Base images that pass through the endpoint.
pub struct Passing {
    /// The directory for their layers.
    pub scratch: Scratch,
    pub indexed: Mutex<Indexed>,
    /// hakobi indexes as many layers at once as there are cores.
    pub cores: Arc<Semaphore>,
}

/// Layers that hakobi indexes while they pass.
#[derive(Default)]
pub struct Indexed {
    pub layers: HashSet<Digest>,
    pub tasks: JoinSet<()>,
}

impl CacheSession {
    /// Opens the store for the image of this build and serves it. `is_checked` if the run has found out that it may push.
    ///
    /// # Errors
    /// If the store does not answer or has another layout.
    pub async fn for_build(
        settings: &CacheSettings,
        build: &BuildSettings,
        registries: &Registries,
        hidden: &Hidden,
        is_checked: bool,
    ) -> Result<Self> {
        // The name of one image from one Dockerfile: the images of a repository share layers, and a scope has many images.
        let image = build.tags.first().map_or("image", |tag| &tag.repository.path);
        let tag = match &build.target {
            Some(target) => format!("target-{}", target.to_lowercase()),
            None => "latest".to_owned(),
        };
        let options = RegistryOptions {
            create: build.push_settings.create_repository.clone(),
            may_push: is_checked
                && matches!(&settings.location, StoreLocation::Registry(cache)
                if build.push && build.tags.iter().any(|tag| tag.repository == cache.repository)),
            ..RegistryOptions::default()
        };
        Ok(Self { hidden: hidden.clone(), ..Self::open_with(settings, image, &tag, registries, options).await? })
    }

    /// Opens the store for an image of this name and serves it.
    ///
    /// # Errors
    /// If the store does not answer or has another layout, or hakobi cannot listen on the loopback address.
    pub async fn open(settings: &CacheSettings, image: &str, tag: &str, registries: &Registries) -> Result<Self> {
        Self::open_with(settings, image, tag, registries, RegistryOptions::default()).await
    }

    async fn open_with(
        settings: &CacheSettings,
        image: &str,
        tag: &str,
        registries: &Registries,
        options: RegistryOptions,
    ) -> Result<Self> {
        let options = RegistryOptions { image: Some(image.to_owned()), scope: settings.scope.clone(), ..options };
        let store = open(&settings.location, registries, options).await;
        let looked = tokio::time::timeout(FIRST_LOOK, Layout::read(&*store)).await;
        let silent = || Error::new(Fault::Unreachable, format!("no answer for {} seconds", FIRST_LOOK.as_secs()));
        let layout = looked.map_err(|_| silent())??;
        let blobs = Blobs::new(store);
        if layout == Layout::Unreadable {
            blobs.note_unusable(&Name::format());
        }
        let new = layout != Layout::Known;
        let address =
            Address::bind().await.map_err(|error| Error::new(Fault::Other, format!("failed to listen on 127.0.0.1: {error}")))?;
        let writes = settings.mode == CacheMode::ReadWrite;
        let scopes = std::iter::once(&settings.scope).chain(&settings.fallbacks);
        let repositories: Vec<CacheRepository> = scopes
            .enumerate()
            .map(|(place, scope)| {
                let repository = address.repository(&format!("{place}/{image}"));
                CacheRepository::new(blobs.clone(), scope, image, repository, writes && place == 0)
            })
            .collect();
        for repository in &repositories {
            registries.stand_in(Arc::new(repository.clone()));
        }
        let endpoint = address.serve(repositories.clone(), None, PathBuf::new());
        Ok(Self {
            endpoint,
            blobs,
            repositories,
            tag: tag.to_owned(),
            writes,
            new,
            begun: OnceCell::new(),
            passing: OnceLock::new(),
            hidden: Hidden::default(),
        })
    }

    /// Returns the references of the image's index in each scope: the own scope first.
    pub fn references(&self) -> impl Iterator<Item = (&str, ImageRef)> {
        self.repositories.iter().map(|repository| (repository.scope(), repository.repository().tag(&self.tag)))
    }

    /// Returns access to the records of all scopes.
    pub fn records(&self) -> Records {
        let scopes = self.repositories.iter().map(|repository| repository.scope().to_owned()).collect();
        Records::new(self.blobs.clone(), scopes, self.writes, self.hidden.clone())
    }

    /// Returns the key of the inputs of this image's last build.
    pub fn inputs_key(&self) -> RecordKey<Inputs> {
        keys::inputs_key(self.image(), &self.tag)
    }

    fn image(&self) -> &str {
        self.repositories.first().map(CacheRepository::image).unwrap_or_default()
    }

    /// Returns the key of this image's last build in which every step ran.
    pub fn cold_key(&self) -> RecordKey<ColdRecord> {
        RecordKey::from_text(&format!("hakobi cold 1\n{}", self.inputs_key()))
    }

    /// Returns the key of how long this image's last builds took in which a command ran, on machines of this kind.
    pub fn runs_key(&self) -> RecordKey<RunsRecord> {
        RecordKey::from_text(&format!("hakobi runs 1\n{}\n{}", self.inputs_key(), std::env::consts::ARCH))
    }

    /// Returns the key of the cache mounts of this image's last build.
    pub fn mounts_key(&self) -> RecordKey<MountsRecord> {
        keys::mounts_key(self.image(), &self.tag)
    }

    /// Returns the key of the disk of a daemon of hakobi's own.
    pub fn disk_key(&self) -> RecordKey<DiskRecord> {
        keys::disk_key(self.image(), &self.tag)
    }

    /// Returns the key of the states that a daemon made for this image.
    pub fn daemon_key(&self, id: &str) -> RecordKey<DaemonRecord> {
        RecordKey::from_text(&format!("hakobi daemon 1\n{id}\n{}", self.inputs_key()))
    }

    /// Returns the store's blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Returns the repository of the own scope.
    pub fn own(&self) -> Option<&CacheRepository> {
        self.repositories.first()
    }

    /// Lets the layers of a base image pass through the own scope's repository.
    ///
    /// # Errors
    /// If hakobi cannot create a temporary directory.
    pub fn pass_through(&self, base: &KnownImage, registries: &Registries) -> crate::error::Result<()> {
        let Some(own) = self.own() else { return Ok(()) };
        let passing = match self.passing.get() {
            Some(passing) => passing,
            None => {
                let cores = std::thread::available_parallelism().map_or(2, usize::from);
                let cores = Arc::new(Semaphore::new(cores));
                let new = Passing { scratch: crate::transfer::temp_dir(Kind::Cache)?, indexed: Mutex::default(), cores };
                self.passing.get_or_init(|| new)
            }
        };
        let mut indexed = passing.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        own.pass_through(&base.manifest.layers, &registries.home(&base.repository), passing.scratch.path());
        for (blob, diff_id) in base.manifest.layers.iter().zip(&base.diff_ids) {
            if indexed.layers.insert(blob.digest.clone()) {
                let cores = Arc::clone(&passing.cores);
                indexed.tasks.spawn(index_layer(self.records(), own.clone(), blob.digest.clone(), diff_id.clone(), cores));
            }
        }
        Ok(())
    }

    /// Waits until the layers that passed through are indexed.
    pub async fn passed(&self) {
        let Some(passing) = self.passing.get() else { return };
        self.repositories.iter().for_each(CacheRepository::passed);
        let mut tasks = std::mem::take(&mut passing.indexed.lock().unwrap_or_else(PoisonError::into_inner).tasks);
        while tasks.join_next().await.is_some() {}
    }

    /// Returns the secret path component that all its names contain.
    pub fn secret_path(&self) -> &str {
        self.endpoint.secret_path()
    }

    /// Returns the names of its repositories.
    pub fn repositories(&self) -> Vec<Repository> {
        self.repositories.iter().map(|repository| repository.repository().clone()).collect()
    }

    /// Returns the scopes as content stores of the session, under the names of their repositories.
    pub fn contents(&self) -> ContentSources {
        let source = |repository: &CacheRepository| {
            Arc::new(RepositoryContent { repository: repository.clone(), tally: self.endpoint.tally() }) as _
        };
        self.repositories.iter().map(|repository| (repository.repository().to_string(), source(repository))).collect()
    }

    /// Returns the reference to save the image under, or `None` if this run may not write.
    pub fn target(&self) -> Option<ImageRef> {
        let own = self.repositories.first().filter(|_| self.writes)?;
        Some(own.repository().tag(&self.tag))
    }

    /// Writes the layout into a new store, before any other object.
    ///
    /// # Errors
    /// If the store does not accept it.
    pub async fn begin(&self) -> Result<()> {
        let begun = self.begun.get_or_try_init(|| async { if self.new { write_format(&self.blobs).await } else { Ok(()) } });
        begun.await.copied()
    }

    /// Makes visible to other runs what this run wrote.
    ///
    /// # Errors
    /// If the store does not accept it.
    pub async fn flush(&self) -> Result<()> {
        self.keep_uses().await?;
        self.blobs.store().flush().await
    }

    /// Writes what this run used, so that `hakobi cache prune` keeps it.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn keep_uses(&self) -> Result<()> {
        // A registry's artifact has its own way to know what is used.
        if !self.writes || self.blobs.store().repository().is_some() {
            return Ok(());
        }
        save_uses(&self.blobs, self.own().map_or("", CacheRepository::scope), self.image(), &self.tag).await
    }

    /// Writes what this run used, like [`Self::flush`], for a run that is done and has written nothing else.
    pub async fn keep_uses_if_possible(&self) {
        if let Err(error) = self.keep_uses().await {
            tracing::info!(%error, "failed to write what this run used");
        }
    }

    /// Returns whether [`Self::begin`] has succeeded.
    pub fn has_begun(&self) -> bool {
        self.begun.initialized()
    }

    /// Returns the saved image from the own scope or the first fallback that has it. Returns `None` if none has it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn released(&self, registries: &Registries) -> crate::error::Result<Option<KnownImage>> {
        for (_, reference) in self.references() {
            let stages = load_stages(registries, &reference).await;
            let stages = stages.map_err(cache_fault)?;
            if let Some(image) = stages.images.into_iter().find(|image| image.stage() == Some("")) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Returns why a read has failed since the last call, or `None`. The daemon may have continued without the object, and without
    /// an error.
    pub fn unread(&self) -> Option<String> {
        self.blobs.unread()
    }

    /// Waits until a blob turns out to be damaged.
    pub async fn found_damaged(&self) {
        self.blobs.found_damaged().await;
    }

    /// Returns whether the daemon got a blob that turned out to be damaged.
    pub fn is_distrusted(&self) -> bool {
        self.blobs.is_distrusted()
    }

    /// Returns the names of other objects that hakobi cannot parse.
    pub fn unusable(&self) -> BTreeSet<Name> {
        self.blobs.unusable()
    }

    /// Returns whether this run may write to the store.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Returns the blobs that turned out to be damaged.
    pub fn damaged(&self) -> HashSet<Digest> {
        self.blobs.damaged()
    }

    /// Counts the bytes of a blob that the daemon got.
    pub fn count_transfer(&self, digest: &Digest, bytes: u64) {
        self.endpoint.tally().add(digest, bytes);
    }

    /// Returns how much the daemon read of these blobs.
    pub fn restored(&self, layers: &HashSet<Digest>) -> Restored {
        let served = self.endpoint.served();
        let mut copied: Vec<Transferred> =
            served.into_iter().filter(|(digest, _)| layers.contains(digest)).map(|(_, given)| given).collect();
        copied.sort_by_key(|given| given.began);
        let mut restored = Restored::default();
        // Time in which several blobs pass counts once.
        let mut until = None;
        for given in copied {
            let from = until.map_or(given.began, |until| given.began.max(until));
            restored.layers += 1;
            restored.bytes += given.bytes;
            restored.seconds += given.ended.saturating_duration_since(from).as_secs_f64();
            until = Some(given.ended.max(from));
        }
        restored
    }
}

/// The layers that the daemon read from the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restored {
    pub layers: u64,
    pub bytes: u64,
    /// How long at least one layer was in transfer; the daemon does other work meanwhile.
    pub seconds: f64,
}

impl Restored {
    /// Adds the numbers to the report.
    pub fn add_to(self, report: &mut RunReport) {
        (report.layers.restored, report.bytes.restored) = (self.layers, self.bytes);
        report.seconds.restore = self.seconds;
    }
}

/// A scope that the daemon reads through the session.
pub struct RepositoryContent {
    pub repository: CacheRepository,
    pub tally: Served,
}

#[async_trait]
impl ContentSource for RepositoryContent {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, String> {
        let sizes = self.repository.sizes(std::slice::from_ref(digest)).await.map_err(|error| error.to_string())?;
        Ok(sizes.get(digest).copied())
    }

    async fn open(&self, digest: &Digest, size: u64, offset: u64) -> Result<ByteStream, String> {
        self.repository.open_blob(digest, Some(size), offset).await.map_err(|error| error.to_string())
    }

    fn sent(&self, digest: &Digest, bytes: u64) {
        self.tally.add(digest, bytes);
    }
}
