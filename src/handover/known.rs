//! Images that registries are known to have: the pulled-latest image, cached stages, base images. hakobi neither compresses nor
//! uploads their layers again.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::future::try_join_all;

use crate::domain::{Descriptor, DiffId, Digest, ImageConfig, ImageRef, Manifest, Platform, RawManifest, Repository, media_type};
use crate::registry::{self, Registries, read_blob};

/// Largest accepted image configuration, in bytes. Inline cache makes them large.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Most layers of an image; Docker accepts 127.
const LAYERS_LIMIT: usize = 1000;

/// Largest layer, in bytes.
const LAYER_LIMIT: u64 = 1 << 40;

/// Most images that are read from one index.
const IMAGES_LIMIT: usize = 200;

/// The annotation of an image in an index of cached stages: its stage, or empty for the released image itself.
pub const STAGE_ANNOTATION: &str = "dev.hakobi.stage";

/// The annotation of the joined cache in the same index: the digest of the released image that it belongs to.
pub const JOINED_ANNOTATION: &str = "dev.hakobi.joined";

/// The cached stages of an image.
#[derive(Debug, Clone, Default)]
pub struct CachedStages {
    /// Their images.
    pub images: Vec<KnownImage>,
    /// Their joined cache.
    pub joined: Option<ImageRef>,
}

/// An image in a registry.
#[derive(Debug, Clone)]
pub struct KnownImage {
    /// Its repository.
    pub repository: Repository,
    /// Its manifest's bytes.
    pub raw: RawManifest,
    /// The parsed manifest.
    pub manifest: Manifest,
    /// Its configuration's bytes.
    pub config: Bytes,
    /// The diff IDs of its layers, from the base up.
    pub diff_ids: Vec<DiffId>,
    /// Its inline cache, as in the configuration.
    pub inline_cache: Option<String>,
    /// Its annotations in the index that names it.
    pub annotations: BTreeMap<String, String>,
}

/// The layers of known images, by digest and by diff ID.
#[derive(Debug, Clone, Default)]
pub struct Known {
    by_digest: HashMap<Digest, (Descriptor, Repository)>,
    by_diff_id: HashMap<DiffId, (Descriptor, Repository)>,
    diff_ids: HashMap<Digest, DiffId>,
}

impl KnownImage {
    /// Returns the stage of this image, or `None` if the index does not name one; empty for the released image.
    #[must_use]
    pub fn stage(&self) -> Option<&str> {
        self.annotations.get(STAGE_ANNOTATION).map(String::as_str)
    }

    /// Returns the reference of the image by its digest.
    #[must_use]
    pub fn reference(&self) -> ImageRef {
        self.repository.digest(&self.raw.digest())
    }
}

impl Known {
    /// Adds an image's layers. A layer of several images is copied from the first one.
    pub fn add(&mut self, image: &KnownImage) {
        self.add_layers(&image.manifest.layers, &image.diff_ids, &image.repository);
    }

    /// Adds layers that a repository has.
    pub fn add_layers(&mut self, layers: &[Descriptor], diff_ids: &[DiffId], repository: &Repository) {
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let known = || (layer.clone().bare(), repository.clone());
            self.by_digest.entry(layer.digest.clone()).or_insert_with(known);
            self.by_diff_id.entry(diff_id.clone()).or_insert_with(known);
            self.diff_ids.entry(layer.digest.clone()).or_insert_with(|| diff_id.clone());
        }
    }

    /// Forgets the layers that are only known from these repositories.
    pub fn forget(&mut self, repositories: &[Repository]) {
        self.by_digest.retain(|_, (_, repository)| !repositories.contains(repository));
        self.by_diff_id.retain(|_, (_, repository)| !repositories.contains(repository));
    }

    /// Returns the layer with this digest, or `None`.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<&(Descriptor, Repository)> {
        self.by_digest.get(digest)
    }

    /// Returns the diff ID of the layer with this digest, or `None`.
    #[must_use]
    pub fn diff_id(&self, digest: &Digest) -> Option<&DiffId> {
        self.diff_ids.get(digest)
    }

    /// Returns the layer with this diff ID, or `None`.
    #[must_use]
    pub fn layer(&self, diff_id: &DiffId) -> Option<&(Descriptor, Repository)> {
        self.by_diff_id.get(diff_id)
    }
}

/// Reads the image, or the images of an index, under a reference. Returns none if there is no such image. From an index for several
/// platforms, it reads only the images of `platform`, if that is given.
///
/// # Errors
/// If the registry does not answer, or has no valid image there.
pub async fn load(
    registries: &Registries,
    reference: &ImageRef,
    platform: Option<&Platform>,
) -> registry::Result<Vec<KnownImage>> {
    let home = registries.home(&reference.repository);
    let Some(raw) = home.manifest(&reference.reference()).await? else { return Ok(Vec::new()) };
    if !raw.is_index() {
        return Ok(image(registries, reference, raw, BTreeMap::new()).await?.into_iter().collect());
    }
    let Ok(index) = raw.index() else { return Ok(Vec::new()) };
    children_of(registries, reference, index.manifests, platform).await
}

async fn children_of(
    registries: &Registries,
    reference: &ImageRef,
    children: Vec<Descriptor>,
    platform: Option<&Platform>,
) -> registry::Result<Vec<KnownImage>> {
    let wanted = |child: &Descriptor| match (&child.platform, platform) {
        (Some(found), Some(wanted)) => found.platform.os == wanted.os && found.platform.architecture == wanted.architecture,
        _ => true,
    };
    let children = children
        .into_iter()
        .filter(|child| {
            !media_type::is_index(&child.media_type) && !child.annotations.contains_key(JOINED_ANNOTATION) && wanted(child)
        })
        .take(IMAGES_LIMIT);
    let images = try_join_all(children.map(|child| async move {
        match registries.home(&reference.repository).manifest(&child.digest.to_string()).await? {
            Some(raw) => image(registries, reference, raw, child.annotations).await,
            None => Ok(None),
        }
    }))
    .await?;
    Ok(images.into_iter().flatten().collect())
}

/// Reads the cached stages under a reference. Returns none if there are none.
///
/// # Errors
/// If the registry does not answer.
pub async fn load_stages(registries: &Registries, reference: &ImageRef) -> registry::Result<CachedStages> {
    let Some(raw) = registries.home(&reference.repository).manifest(&reference.reference()).await? else {
        return Ok(CachedStages::default());
    };
    let children = raw.index().map(|index| index.manifests).unwrap_or_default();
    let joined = children.iter().find(|child| child.annotations.contains_key(JOINED_ANNOTATION));
    let joined = joined.map(|child| reference.repository.digest(&child.digest));
    Ok(CachedStages { images: children_of(registries, reference, children, None).await?, joined })
}

async fn image(
    registries: &Registries,
    reference: &ImageRef,
    raw: RawManifest,
    annotations: BTreeMap<String, String>,
) -> registry::Result<Option<KnownImage>> {
    let Ok(manifest) = raw.manifest() else { return Ok(None) };
    let config = match read_blob(&*registries.home(&reference.repository), &manifest.config.digest, CONFIG_LIMIT).await {
        // An incomplete image of the cache counts as missing; the next save writes it again.
        Err(error)
            if registries.is_own(&reference.repository)
                && matches!(error.kind, registry::Kind::Damaged | registry::Kind::NotFound) =>
        {
            return Ok(None);
        }
        config => config?,
    };
    // Other artifacts have manifests too: without a root file system, it is no image.
    let Ok(parsed) = serde_json::from_slice::<ImageConfig>(&config) else { return Ok(None) };
    let layers = &manifest.layers;
    let is_sane = layers.len() <= LAYERS_LIMIT && layers.iter().all(|layer| layer.size <= LAYER_LIMIT);
    if parsed.rootfs.diff_ids.len() != layers.len() || !is_sane {
        return Ok(None);
    }
    Ok(Some(KnownImage {
        repository: reference.repository.clone(),
        raw,
        manifest,
        config,
        diff_ids: parsed.rootfs.diff_ids,
        inline_cache: parsed.inline_cache,
        annotations,
    }))
}
