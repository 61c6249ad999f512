//! The images of a store: each pointer, and what it leads to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::disks::{CachedDisk, saved_disk};
use super::listed::Listed;
use super::mounts::{CachedMounts, saved_mounts};
use crate::domain::{Descriptor, Digest, RawManifest};
use crate::handover::STAGE_ANNOTATION;
use crate::store::{Blobs, Entry, Name, Result, read_small};

/// Largest manifest or pointer, in bytes.
const SMALL: u64 = 4 << 20;

/// A pointer, and the image that it leads to.
#[derive(Debug, Serialize)]
pub struct CachedImage {
    pub scope: String,
    pub image: String,
    pub digest: String,
    /// Number of stages that are saved beside the image.
    pub stages: usize,
    pub layers: usize,
    /// The size of all its blobs, in bytes.
    pub bytes: u64,
    /// When the pointer was written, in seconds of the Unix epoch.
    pub written: u64,
    /// The pointer.
    #[serde(skip)]
    pub name: Option<Name>,
    #[serde(skip)]
    pub blobs: BTreeSet<Digest>,
    /// Blobs that the image needs and the store lacks.
    pub missing: Vec<Digest>,
    /// The cache mounts of its last build.
    pub mounts: CachedMounts,
    /// The disk of hakobi's own daemon, if that built it.
    pub disk: Option<CachedDisk>,
}

impl CachedImage {
    /// Returns whether the image is not complete without these blobs.
    pub fn lacks(&self, blobs: &BTreeSet<Digest>) -> bool {
        self.digest.is_empty() || !self.missing.is_empty() || !self.blobs.is_disjoint(blobs)
    }
}

#[derive(Deserialize)]
struct Pointer {
    digest: Digest,
}

/// Returns the image that a pointer leads to, with its cache mounts and its daemon's disk.
///
/// # Errors
/// If the record of one of these cannot be read.
pub async fn image_of(blobs: &Blobs, listed: &Listed, pointer: Entry) -> Result<CachedImage> {
    let mut image = followed(blobs, &listed.sizes, pointer).await;
    image.mounts = saved_mounts(blobs, listed, &image.scope, &image.image).await?;
    image.disk = saved_disk(blobs, listed, &image.scope, &image.image).await?;
    Ok(image)
}

/// Follows a pointer to all its blobs.
async fn followed(blobs: &Blobs, sizes: &BTreeMap<Digest, u64>, entry: Entry) -> CachedImage {
    let (scope, image) = entry.name.pointed().unwrap_or_else(|| (String::new(), entry.name.to_string()));
    let mut image = CachedImage {
        scope,
        image,
        digest: String::new(),
        stages: 0,
        layers: 0,
        bytes: 0,
        written: entry.written,
        name: Some(entry.name.clone()),
        blobs: BTreeSet::new(),
        missing: Vec::new(),
        mounts: CachedMounts::default(),
        disk: None,
    };
    let Some(pointer) = small(blobs, &entry.name).await.and_then(|bytes| serde_json::from_slice::<Pointer>(&bytes).ok()) else {
        return image;
    };
    image.digest = pointer.digest.to_string();
    let mut layers = BTreeSet::new();
    let mut open = vec![pointer.digest];
    while let Some(digest) = open.pop() {
        if !image.blobs.insert(digest.clone()) {
            continue;
        }
        let Some(bytes) = small(blobs, &Name::blob(&digest)).await else { continue };
        let Some(media_type) = RawManifest::media_type_of(&bytes) else { continue };
        let raw = RawManifest { media_type, bytes };
        if let Ok(index) = raw.index()
            && raw.is_index()
        {
            let stage = |child: &&Descriptor| child.annotations.get(STAGE_ANNOTATION).is_some_and(|stage| !stage.is_empty());
            image.stages += index.manifests.iter().filter(stage).count();
            open.extend(index.manifests.into_iter().map(|child| child.digest));
        } else if let Ok(manifest) = raw.manifest() {
            image.blobs.insert(manifest.config.digest);
            layers.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
            image.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
    }
    image.layers = layers.len();
    image.bytes = image.blobs.iter().filter_map(|digest| sizes.get(digest)).sum();
    image.missing = image.blobs.iter().filter(|digest| !sizes.contains_key(digest)).cloned().collect();
    image
}

/// Reads a small object. Returns `None` if it is not readable: `ls` shows it as missing, and `verify` as damaged.
async fn small(blobs: &Blobs, name: &Name) -> Option<bytes::Bytes> {
    match name.digest() {
        Some(digest) => blobs.read(&digest, SMALL).await.ok().flatten(),
        None => read_small(blobs.store(), name, SMALL).await.ok().flatten(),
    }
}
