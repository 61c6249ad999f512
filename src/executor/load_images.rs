//! Loads images for a daemon that cannot reach this host: as archives (`docker load`), under names that hakobi removes at the end
//! of the run.

use std::sync::Arc;

use crate::docker_archive::{self, Encoding, SavedImage, SavedLayer};
use crate::domain::{Digest, ImageConfig, ImageRef};
use crate::engine::{Docker, EngineInfo, StoreKind};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, RewrittenGraph};
use crate::handover::KnownImage;
use crate::local_registry::CacheRepository;
use crate::registry::{RemoteBlob, Source, read_blob};
use crate::run::daemon::DaemonBuild;
use crate::transfer::{BlobSource, Scratch};

/// Largest configuration of an offered image, in bytes.
pub const CONFIG_LIMIT: u64 = 4 << 20;

/// Loads the offered images that these graphs name into the daemon, unless it has them already.
///
/// # Errors
/// If an image cannot be read, or the daemon refuses it.
pub async fn load_sources(daemon: &DaemonBuild<'_>, rewritten: &[&RewrittenGraph]) -> Result<()> {
    let Some((cache, own)) = daemon.context.cache.usable().and_then(|(cache, _)| Some((cache, cache.own()?))) else {
        return Ok(());
    };
    let graphs = rewritten.iter().filter_map(|rewritten| Graph::new(rewritten.definition.clone()).ok());
    let wanted: Vec<Digest> = graphs
        .flat_map(|graph| graph.base_images().iter().filter_map(|name| daemon.loaded.digest(name)).collect::<Vec<_>>())
        .collect();
    let mut names = daemon.loaded.names.lock().await;
    for digest in wanted {
        if names.contains_key(&digest) {
            continue;
        }
        let name: ImageRef =
            daemon.loaded.name(&digest).parse().map_err(|_| Error::build("an image from the cache has no name"))?;
        daemon.loaded.scratch.get_or_init(|| {
            let scratch = Scratch::new().ok()?;
            scratch.remember(daemon.loaded.repository.rsplit('/').next()?);
            Some(scratch)
        });
        let step = daemon.context.events.step("[hakobi] loading cached layers into the daemon");
        // Borrowed before the image exists, so that hakobi removes the name whatever happens meanwhile.
        let borrowed = daemon.docker.borrow(name.clone());
        let loaded = match load_offered(daemon, own, &digest, &name).await {
            Ok(loaded) => loaded,
            Err(error) => {
                step.failed(&error);
                // The daemon may not have the name at all.
                let _ = borrowed.give_back().await;
                return Err(error);
            }
        };
        step.done();
        for (layer, size) in loaded {
            cache.count_transfer(&layer, size);
        }
        names.insert(digest, borrowed);
    }
    Ok(())
}

pub async fn load_offered(
    daemon: &DaemonBuild<'_>,
    own: &CacheRepository,
    digest: &Digest,
    name: &ImageRef,
) -> Result<Vec<(Digest, u64)>> {
    let failed = |error: crate::registry::Error| {
        let hint = error.hint();
        Error::new(Kind::Cache, "failed to read cached layers").because(&error).hint_if(hint)
    };
    let lost = || Error::new(Kind::Cache, "failed to read cached layers");
    let raw = own.manifest(&digest.to_string()).await.map_err(failed)?.ok_or_else(lost)?;
    let manifest = raw.manifest().map_err(|error| lost().because(&error))?;
    let config = read_blob(own, &manifest.config.digest, CONFIG_LIMIT).await.map_err(failed)?;
    let told: ImageConfig = serde_json::from_slice(&config).map_err(|error| lost().because(&error))?;
    let image = KnownImage {
        repository: own.repository().clone(),
        raw,
        manifest,
        config,
        diff_ids: told.rootfs.diff_ids,
        inline_cache: None,
        annotations: [].into(),
    };
    load(&daemon.docker, &daemon.info, &image, name, Arc::new(own.clone())).await
}

/// Removes the names of all loaded images.
pub async fn unload(daemon: &DaemonBuild<'_>) {
    for (_, name) in daemon.loaded.names.lock().await.drain() {
        if let Err(error) = name.give_back().await {
            daemon.context.events.warning(error.to_string());
        }
    }
}

/// Loads an image under this name, without the layers that the daemon has. Returns the digests and sizes of the layers that hakobi
/// sent.
///
/// # Errors
/// If the image cannot be read, or the daemon refuses it.
pub async fn load(
    docker: &Docker,
    info: &EngineInfo,
    image: &KnownImage,
    name: &ImageRef,
    home: Arc<dyn Source>,
) -> Result<Vec<(Digest, u64)>> {
    let there = docker.layers().await?;
    // A daemon has a layer if one of its images also has all layers below it.
    let has = |place: usize| there.iter().any(|chain| chain.get(..=place) == image.diff_ids.get(..=place));
    let layers = image.manifest.layers.len();
    let lacking: Vec<usize> = (0..layers).filter(|place| !has(*place)).collect();
    match load_layers(docker, info, image, name, &home, &lacking).await {
        // The containerd store identifies layers by their blobs, and does not list these: the same layer may have another blob
        // there.
        Err(_) if info.store == StoreKind::Containerd && lacking.len() < layers => {
            load_layers(docker, info, image, name, &home, &(0..layers).collect::<Vec<_>>()).await
        }
        loaded => loaded,
    }
}

pub async fn load_layers(
    docker: &Docker,
    info: &EngineInfo,
    image: &KnownImage,
    name: &ImageRef,
    home: &Arc<dyn Source>,
    lacking: &[usize],
) -> Result<Vec<(Digest, u64)>> {
    let layers = image.manifest.layers.iter().zip(&image.diff_ids).enumerate().map(|(place, (descriptor, diff_id))| {
        let blob = || Arc::new(RemoteBlob::new(Arc::clone(home), descriptor)) as Arc<dyn BlobSource>;
        SavedLayer { diff_id: diff_id.clone(), descriptor: descriptor.clone(), blob: lacking.contains(&place).then(blob) }
    });
    let saved = SavedImage {
        tags: vec![name.clone()],
        config: image.config.clone(),
        layers: layers.collect(),
        manifest: Some(image.raw.clone()),
    };
    let directory = crate::transfer::temp_dir(Kind::Cache)?;
    let stream = docker_archive::write(vec![saved], encoding(info), directory.path())
        .map_err(|error| Error::new(Kind::Cache, "failed to write the image").because(&error))?;
    docker.load(stream).await?;
    let came = lacking.iter().filter_map(|place| image.manifest.layers.get(*place));
    Ok(came.map(|layer| (layer.digest.clone(), layer.size)).collect())
}

/// Returns how to send layers. Docker accepts zstd layers from version 23 on (API 1.42).
pub fn encoding(info: &EngineInfo) -> Encoding {
    if info.api >= (1, 42) { Encoding::Stored } else { Encoding::WithoutZstd }
}
