//! The release: moves an image from the daemon into all target repositories.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::cache::opened::CacheRefusal;
use crate::domain::{
    Descriptor, DiffId, Digest, ImageRef, Index, InlineCache, Made, Platform, RawManifest, Repository, comparable, media_type,
};
use crate::engine::{BorrowedName, Docker};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::graph::{Graph, Step};
use crate::handover::{Intake, Known, KnownImage, NewLayer, PreparedImage, load, out_of_space_error};
use crate::local_registry::{CacheRepository, Endpoint};
use crate::output::LayerCounts;
use crate::push::{Failure, Pusher, RepositoryBlobs, TagOutcome};
use crate::registry::{Home as _, Registries, Source as _};
use crate::save::{Exit, with_whole_cache};
use crate::settings::PushSettings;
use crate::transfer::{ByteStream, Scratch, Spool};

/// The name of the released image at the endpoint.
pub const NAME: &str = "image";

/// The endpoint, with the pushers that receive its images.
pub struct IntakeSetup {
    pub endpoint: Endpoint,
    pub intake: Intake,
    /// Pushes to the registries.
    pub pusher: Pusher,
    /// Pushes to the store; its faults do not fail the push.
    pub cache_pusher: Option<Pusher>,
}

/// An open release: the daemon can push to it.
pub struct Release {
    pub registries: Registries,
    pub tags: Vec<ImageRef>,
    pub settings: PushSettings,
    pub events: Events,
    pub cache_repository: Option<Repository>,
    pub setup: IntakeSetup,
    pub directory: Scratch,
    /// The image's name in the daemon while the daemon makes the image.
    pub lent: Mutex<Option<BorrowedName>>,
    pub learning: Mutex<JoinSet<Vec<KnownImage>>>,
}

/// A release after its push; some of its tags may have failed.
pub struct Released {
    pub release: Release,
    /// The manifest or index that the tags point to.
    pub manifest: RawManifest,
    /// The images as they are in the registries, one for each platform.
    pub images: Vec<PreparedImage>,
    pub tags: Vec<TagOutcome>,
    pub layers: LayerCounts,
    /// Number of uploaded bytes.
    pub bytes: u64,
}

/// The result of pushing an image with cached layers.
pub enum PutOutcome {
    /// The image is in the registries.
    Done(Box<Released>),
    /// The store failed. hakobi has tagged nothing.
    Not(CacheRefusal),
}

impl Release {
    /// Opens a release to the repositories of these tags, and to the cache repository if there is one.
    ///
    /// # Errors
    /// If there is no temporary directory, or hakobi cannot listen on the loopback address.
    pub async fn open(
        registries: &Registries,
        tags: &[ImageRef],
        cache_repository: Option<&Repository>,
        settings: &PushSettings,
        known: &[KnownImage],
        events: &Events,
    ) -> Result<Self> {
        let directory = crate::transfer::temp_dir(Kind::Push)?;
        let repositories = repositories(tags);
        let setup = intake_setup(registries, repositories, cache_repository, settings, known, events, &directory).await?;
        Ok(Self {
            registries: registries.clone(),
            tags: tags.to_vec(),
            settings: settings.clone(),
            events: events.clone(),
            cache_repository: cache_repository.cloned(),
            setup,
            directory,
            lent: Mutex::default(),
            learning: Mutex::default(),
        })
    }

    /// Forgets which blobs these repositories have.
    pub fn forget(&self, repositories: &[Repository]) {
        self.setup.intake.learn(|known| known.forget(repositories));
    }

    /// Notes that a repository has these layers.
    pub fn learn(&self, layers: &[Descriptor], diff_ids: &[DiffId], repository: &Repository) {
        self.setup.intake.learn(|known| known.add_layers(layers, diff_ids, repository));
    }

    /// Pushes an image that is not in the daemon. Layers that the targets lack come from the cache repository. Pushes nothing if
    /// that lacks a layer too or cannot supply it, or if a layer has another size than the image says.
    ///
    /// # Errors
    /// If the targets fail.
    pub async fn put(self, image: PreparedImage, from: &CacheRepository) -> Result<PutOutcome> {
        let wanted = self.setup.pusher.missing(&image.layers).await?;
        let digests: Vec<Digest> = wanted.iter().map(|layer| layer.digest.clone()).collect();
        let there = match from.sizes(&digests).await {
            Ok(there) => there,
            Err(error) => return Ok(PutOutcome::Not(CacheRefusal::Broken(error.to_string()))),
        };
        if !digests.iter().all(|digest| there.contains_key(digest)) {
            return Ok(PutOutcome::Not(CacheRefusal::Lacking));
        }
        for layer in &image.layers {
            let size = match there.get(&layer.digest) {
                Some(size) => Some(*size),
                None => self.setup.pusher.size(&layer.digest).await?,
            };
            // Some registries do not report a size.
            if let Some(size) = size.filter(|size| *size != layer.size && *size > 0) {
                let why = format!("the layer {} has {size} bytes, not {}", layer.digest, layer.size);
                return Ok(PutOutcome::Not(CacheRefusal::Otherwise(why)));
            }
        }
        for layer in &wanted {
            self.setup.pusher.copy(layer, from.repository());
        }
        Box::pin(self.put_layered(image, Some(from.repository()))).await
    }

    /// Pushes an image with the layers of another image: the targets mount these, or hakobi copies them.
    ///
    /// # Errors
    /// If the targets or the other image's registry fail.
    pub async fn put_from(self, image: PreparedImage, base: &KnownImage) -> Result<PutOutcome> {
        for layer in &base.manifest.layers {
            for pusher in std::iter::once(&self.setup.pusher).chain(&self.setup.cache_pusher) {
                pusher.copy(layer, &base.repository);
            }
        }
        Box::pin(self.put_layered(image, None)).await
    }

    /// Pushes an image whose layers are being uploaded. Pushes no manifest if an upload failed because of the store.
    ///
    /// # Errors
    /// If the targets fail.
    #[tracing::instrument(name = "publish", level = "info", skip_all)]
    pub async fn put_layered(self, image: PreparedImage, store: Option<&Repository>) -> Result<PutOutcome> {
        let layers = match self.setup.pusher.finish_blobs().await {
            Ok(pushed) => pushed.total(),
            Err(failure) if store.is_some() && failure.source() == store => {
                return Ok(PutOutcome::Not(CacheRefusal::Broken(failure.error.to_string())));
            }
            Err(failure) => return Err(failure.into()),
        };
        for pusher in std::iter::once(&self.setup.pusher).chain(&self.setup.cache_pusher) {
            pusher.upload_config(image.config.clone());
        }
        let sent = self.setup.pusher.finish_blobs().await?.total();
        let tags = self.setup.pusher.put(&image.manifest, &[], &self.tags).await;
        let (pushed, repositories) = (layers.pushed + layers.mounted, repositories(&self.tags).len() as u64);
        let already_in_registry = (image.layers.len() as u64 * repositories).saturating_sub(pushed);
        let layers = LayerCounts { pushed, already_in_registry, ..LayerCounts::default() };
        let manifest = image.manifest.clone();
        Ok(PutOutcome::Done(Box::new(Released { manifest, images: vec![image], tags, layers, bytes: sent.bytes, release: self })))
    }

    /// Returns the intake of the image.
    pub fn intake(&self) -> &Intake {
        &self.setup.intake
    }

    /// Returns a repository that has the released image.
    ///
    /// # Errors
    /// If there is neither a tag nor a cache repository.
    pub fn repository(&self) -> Result<&Repository> {
        let tagged = self.tags.first().map(|tag| &tag.repository);
        tagged.or(self.cache_repository.as_ref()).ok_or_else(|| Error::push("no repository to push to"))
    }

    /// Returns the name under which the daemon must push the image.
    pub fn reference(&self) -> ImageRef {
        self.setup.endpoint.reference(NAME)
    }

    /// Looks up the base images in the target registries, in the background: their layers need no upload then. hakobi does not ask
    /// other registries, because each request counts against their limits (Docker Hub).
    pub fn learn_bases(&self, graph: &Graph, platform: &str) {
        let platform: Option<Platform> = platform.parse().ok();
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        for base in graph.base_images() {
            let Ok(reference) = base.parse::<ImageRef>() else { continue };
            if self.tags.iter().any(|tag| tag.repository.host == reference.repository.host) {
                let (registries, platform) = (self.registries.clone(), platform.clone());
                // hakobi uploads the layers of a base image that it cannot look up.
                learning.spawn(async move { load(&registries, &reference, platform.as_ref()).await.unwrap_or_default() });
            }
        }
    }

    /// Lets the daemon hand over the image, unless BuildKit has already done so, and pushes it under all tags.
    ///
    /// # Errors
    /// If the daemon or a target fails, or a repository that hakobi copies layers from.
    #[allow(clippy::too_many_arguments, reason = "each is a separate input")]
    #[tracing::instrument(name = "publish", level = "info", skip_all)]
    pub async fn push(
        self,
        docker: &Docker,
        exit: Exit,
        made: Made,
        annotations: BTreeMap<String, String>,
        latest: &[KnownImage],
        inline: bool,
        steps: &[Step],
    ) -> Result<Released, Failure> {
        let mut learning = std::mem::take(&mut *self.learning.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(learned) = learning.join_next().await {
            self.setup.intake.learn(|known| learned.unwrap_or_default().iter().for_each(|image| known.add(image)));
        }
        let step = (exit != Exit::Straight).then(|| self.events.step("[hakobi] reading the image from the daemon"));
        let handed = self.hand_over(docker, exit, made).await;
        if let Some(step) = step {
            match &handed {
                Ok(()) => step.done(),
                Err(error) => step.failed(error),
            }
        }
        handed?;
        let composed = self.setup.intake.compose(NAME, &annotations).await?;
        let layers: u64 = composed.iter().map(|image| image.layers.len() as u64).sum();
        let repositories = repositories(&self.tags).len() as u64;
        let before = self.setup.pusher.finish_blobs().await?.total();
        let mut images = Vec::new();
        for image in composed {
            let image = match same_as_before(&image, latest, inline, &annotations) {
                Some(before) => PreparedImage {
                    manifest: before.raw.clone(),
                    config: before.config.clone(),
                    inline_cache: before.inline_cache.clone(),
                    ..image
                },
                None if inline => {
                    let older = latest.iter().find(|older| older.diff_ids.first() == image.diff_ids.first());
                    with_whole_cache(&image, steps, older)?
                }
                None => image,
            };
            for pusher in std::iter::once(&self.setup.pusher).chain(&self.setup.cache_pusher) {
                pusher.upload_config(image.config.clone());
            }
            images.push(image);
        }
        let after = self.setup.pusher.finish_blobs().await?.total();
        let (manifest, children) = top(&images)?;
        let tags = self.setup.pusher.put(&manifest, &children, &self.tags).await;
        let pushed = before.pushed;
        let layers =
            LayerCounts { pushed, already_in_registry: (layers * repositories).saturating_sub(pushed), ..LayerCounts::default() };
        Ok(Released { manifest, images, tags, layers, bytes: after.bytes, release: self })
    }

    pub async fn hand_over(&self, docker: &Docker, exit: Exit, made: Made) -> Result<()> {
        if let Some(lent) = self.lent().take() {
            lent.hand_on();
        }
        let reference = self.reference();
        tokio::select! {
            handed = exit.hand_over(docker, &reference, &self.setup.intake, NAME, made) => handed,
            error = self.out_of_space() => Err(error),
        }
    }

    /// Waits until TMPDIR has no room for a layer, and returns that error. Never returns if it has room.
    pub async fn out_of_space(&self) -> Error {
        out_of_space_error(&self.setup.endpoint.out_of_space().await)
    }

    /// Starts an attempt: the daemon is about to make the image. Forgets the results of the attempt before.
    pub fn begin(&self) {
        self.setup.intake.begin(NAME);
    }

    /// Takes a name that the daemon gives the image; hakobi removes it whatever happens meanwhile.
    pub fn lend(&self, name: BorrowedName) {
        let mut lent = self.lent();
        match &*lent {
            Some(_) => name.hand_on(),
            None => *lent = Some(name),
        }
    }

    pub fn lent(&self) -> MutexGuard<'_, Option<BorrowedName>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the daemon hand over the layers that it made above the skeleton. Returns the layers and the configuration of their
    /// image.
    ///
    /// # Errors
    /// If the daemon or a target fails.
    pub async fn take_layers(&self, docker: &Docker, exit: Exit, made: Made, below: usize) -> Result<(Vec<NewLayer>, Bytes)> {
        self.hand_over(docker, exit, made).await?;
        let taken = self.setup.intake.layers_above(NAME, below).await?;
        self.setup.pusher.finish_blobs().await?;
        Ok(taken)
    }

    /// Takes a new layer from a stream, and uploads it while it arrives.
    ///
    /// # Errors
    /// If TMPDIR has no room.
    pub fn take_stream(&self, layer: ByteStream) -> Result<Spool> {
        let full = |error: std::io::Error| out_of_space_error(&error.to_string());
        let (writer, spool) = Spool::create(self.directory.path()).map_err(full)?;
        writer.fill(layer);
        for pusher in std::iter::once(&self.setup.pusher).chain(&self.setup.cache_pusher) {
            pusher.upload(Arc::new(spool.clone()), None);
        }
        Ok(spool)
    }

    /// Waits until all layers are uploaded.
    ///
    /// # Errors
    /// If a target fails.
    #[tracing::instrument(name = "publish", level = "info", skip_all)]
    pub async fn finish(&self) -> Result<()> {
        Ok(self.setup.pusher.finish_blobs().await.map(drop)?)
    }

    /// Opens an intake for further images into the repository of this reference. The intake knows the released layers.
    ///
    /// # Errors
    /// If hakobi cannot listen on the loopback address.
    pub async fn intake_for(&self, to: &ImageRef, stages: &[KnownImage], images: &[PreparedImage]) -> Result<IntakeSetup> {
        let repositories = vec![to.repository.clone()];
        let directory = &self.directory;
        let setup = intake_setup(&self.registries, repositories, None, &self.settings, stages, &self.events, directory).await?;
        let repository = self.repository()?;
        setup.intake.learn(|known| images.iter().for_each(|image| known.add_layers(&image.layers, &image.diff_ids, repository)));
        Ok(setup)
    }
}

impl Released {
    /// Waits until the image's blobs are in the store. Returns the blobs that are new there.
    ///
    /// # Errors
    /// If the store did not accept them.
    pub async fn saved(&self) -> Result<RepositoryBlobs> {
        match &self.release.setup.cache_pusher {
            Some(cache_pusher) => Ok(cache_pusher.finish_blobs().await?.total()),
            None => Ok(RepositoryBlobs::default()),
        }
    }

    /// Returns the failures of the tags as one error. hakobi has tried all tags.
    ///
    /// # Errors
    /// If a tag failed.
    pub fn failure(&self) -> Result<()> {
        let failed: Vec<String> =
            self.tags.iter().filter_map(|tag| Some(format!("{}: {}", tag.reference, tag.state.as_ref().err()?))).collect();
        let hint = self.tags.iter().find_map(|tag| tag.state.as_ref().err()?.hint());
        if failed.is_empty() { Ok(()) } else { Err(Error::push(failed.join("\n")).hint_if(hint)) }
    }
}

pub async fn intake_setup(
    registries: &Registries,
    repositories: Vec<Repository>,
    cache_repository: Option<&Repository>,
    settings: &PushSettings,
    images: &[KnownImage],
    events: &Events,
    directory: &Scratch,
) -> Result<IntakeSetup> {
    let pusher = Pusher::new(registries.clone(), repositories.clone(), events.clone());
    let mut known = Known::default();
    // The images in the target repositories come first, because their layers need no copy.
    let (own, others): (Vec<_>, Vec<_>) = images.iter().partition(|image| repositories.contains(&image.repository));
    own.into_iter().chain(others).for_each(|image| known.add(image));
    let layers: Vec<Descriptor> = images.iter().flat_map(|image| image.manifest.layers.clone()).collect();
    if !layers.is_empty() {
        // Looks up all layers at once, before the daemon asks for one after the other. A fault comes again, and is reported, when
        // the daemon asks for the layer.
        let _ = pusher.missing(&layers).await;
    }
    let cache_pusher = cache_repository
        .map(|cache_repository| Pusher::new(registries.clone(), vec![cache_repository.clone()], events.clone()).after(&pusher));
    let pushers = std::iter::once(&pusher).filter(|_| !repositories.is_empty()).chain(&cache_pusher).cloned().collect();
    let intake = Intake::new(pushers, known, settings.compression, directory.path().to_owned());
    let endpoint = Endpoint::start(Arc::new(intake.clone()), directory.path().to_owned())
        .await
        .map_err(|error| Error::push("failed to listen on 127.0.0.1").because(&error))?;
    directory.remember(endpoint.secret_path());
    Ok(IntakeSetup { endpoint, intake, pusher, cache_pusher })
}

pub fn repositories(tags: &[ImageRef]) -> Vec<Repository> {
    let mut out: Vec<Repository> = Vec::new();
    for tag in tags {
        if !out.contains(&tag.repository) {
            out.push(tag.repository.clone());
        }
    }
    out
}

/// Returns the image in the registry, if the new image differs only in times and cache records. The image then keeps its digest,
/// and users of the digest see no change. Returns `None` if there is no such image.
pub fn same_as_before<'a>(
    image: &PreparedImage,
    latest: &'a [KnownImage],
    inline: bool,
    annotations: &BTreeMap<String, String>,
) -> Option<&'a KnownImage> {
    let config = comparable(&image.config).ok()?;
    latest.iter().find(|before| {
        let results = |cache: &Option<String>| cache.as_deref().and_then(InlineCache::decode).map_or(0, |cache| cache.results());
        before.diff_ids == image.diff_ids
            && before.manifest.layers.iter().zip(&image.layers).all(|(a, b)| a.digest == b.digest)
            && before.manifest.annotations == *annotations
            && comparable(&before.config).is_ok_and(|before| before == config)
            && (!inline || results(&before.inline_cache) >= results(&image.inline_cache))
    })
}

/// Returns the manifest that the tags point to: the image's, or an index of several images.
///
/// # Errors
/// If there is no image.
pub fn top(images: &[PreparedImage]) -> Result<(RawManifest, Vec<RawManifest>)> {
    match images {
        [] => Err(Error::push("no image to push")),
        [image] => Ok((image.manifest.clone(), Vec::new())),
        images => {
            let manifests = images
                .iter()
                .map(|image| Descriptor { platform: Some(image.platform.clone().into()), ..image.manifest.descriptor() })
                .collect();
            let index = Index {
                schema_version: 2,
                media_type: media_type::OCI_INDEX.to_owned(),
                manifests,
                annotations: BTreeMap::new(),
            };
            let index = RawManifest::from_json(media_type::OCI_INDEX, &index)
                .map_err(|error| Error::push("failed to write the index").because(&error))?;
            Ok((index, images.iter().map(|image| image.manifest.clone()).collect()))
        }
    }
}
