//! Prepares the image for the registries, from the parts that the daemon handed over.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::intake::{Inner, Intake};
use super::tag::TAG;
use super::transcode::{self, Format};
use crate::domain::{
    Descriptor, DiffId, Digest, ImageConfig, Likeness, Made, Manifest, Platform, RawManifest, media_type, retyped,
};
use crate::error::{Error, Result};
use crate::settings::Compression;
use crate::transfer::BlobSource;

/// Largest accepted image configuration, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// One image, ready for its registries once its blobs are there.
#[derive(Debug, Clone)]
pub struct PreparedImage {
    /// Its manifest.
    pub manifest: RawManifest,
    /// Its configuration.
    pub config: Bytes,
    /// The diff IDs of its layers.
    pub diff_ids: Vec<DiffId>,
    /// Its layers as the registries have them.
    pub layers: Vec<Descriptor>,
    /// Its platform.
    pub platform: Platform,
    /// Its inline cache, as in the configuration.
    pub inline_cache: Option<String>,
}

impl Intake {
    /// Prepares the images that arrived under this name: one, or those of an index.
    ///
    /// # Errors
    /// If a part is missing, or they are not what the daemon made.
    pub async fn compose(&self, name: &str, annotations: &BTreeMap<String, String>) -> Result<Vec<PreparedImage>> {
        let inner = self.inner();
        let (top, made) = handed_over(inner, name)?;
        if !top.is_index() {
            return Ok(vec![Box::pin(image(inner, &top, &made, annotations)).await?]);
        }
        if made.likeness(&top) != Likeness::Manifest {
            return Err(another());
        }
        let manifests = inner.state().manifests.get(name).cloned().unwrap_or_default();
        let index =
            top.index().map_err(|error| Error::push("failed to read the index that the daemon pushed").because(&error))?;
        let mut out = Vec::new();
        for child in index.manifests {
            // Attestations have no platform to run on. No build requests them.
            if child.platform.as_ref().is_some_and(|platform| platform.platform.os == "unknown") {
                continue;
            }
            if let Some(raw) = manifests.get(&child.digest.to_string()) {
                // The index names the image by its digest.
                let named = Made { digests: vec![child.digest.clone()], ..Made::default() };
                out.push(Box::pin(image(inner, raw, &named, annotations)).await?);
            }
        }
        if out.is_empty() { Err(Error::push("the index that the daemon pushed has no images")) } else { Ok(out) }
    }
}

/// Returns the error for a layer that does not fit into the temporary directory.
#[must_use]
pub fn out_of_space_error(why: &str) -> Error {
    Error::push(format!("failed to write a layer to the temporary directory: {why}"))
        .hint("set TMPDIR to a directory with more free space")
}

/// A layer that the daemon made.
#[derive(Debug, Clone)]
pub struct NewLayer {
    /// The layer as the registries have it.
    pub blob: Descriptor,
    /// The digest of the uncompressed layer.
    pub diff_id: DiffId,
}

impl Intake {
    /// Returns the layers above the first `below` layers of the image that arrived under this name, and its configuration.
    ///
    /// # Errors
    /// If a part is missing, or it is not what the daemon made.
    pub async fn layers_above(&self, name: &str, below: usize) -> Result<(Vec<NewLayer>, Bytes)> {
        let inner = self.inner();
        let (top, made) = handed_over(inner, name)?;
        let (manifest, config, parsed) = Box::pin(parts(inner, &top)).await?;
        Box::pin(compare(inner, &top, &made, &manifest, &parsed.rootfs.diff_ids)).await?;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(parsed.rootfs.diff_ids).skip(below) {
            layers.push(NewLayer { blob: settle(inner, layer, &diff_id).await?, diff_id });
        }
        Ok((layers, config))
    }
}

/// Returns the manifest that arrived under this name, and the digests that the daemon reported.
///
/// # Errors
/// If one of these is missing.
fn handed_over(inner: &Inner, name: &str) -> Result<(RawManifest, Made)> {
    let state = inner.state();
    let top = state.manifests.get(name).and_then(|manifests| manifests.get(TAG)).cloned();
    let top = top.ok_or_else(|| Error::push("the daemon pushed no manifest"))?;
    let made = state.made.get(name).filter(|made| !made.digests.is_empty() || !made.diff_ids.is_empty()).cloned();
    Ok((top, made.ok_or_else(|| Error::push("the daemon did not report which image it built"))?))
}

/// Compares the arrived image with what the daemon made, before hakobi uses any part of it.
///
/// # Errors
/// If it is another image.
async fn compare(inner: &Inner, raw: &RawManifest, made: &Made, manifest: &Manifest, diff_ids: &[DiffId]) -> Result<()> {
    match made.likeness(raw) {
        // It names everything else by digest, and hakobi compares each blob with its digest on arrival.
        Likeness::Manifest => return Ok(()),
        Likeness::Config => {}
        Likeness::None if made.diff_ids == diff_ids && !diff_ids.is_empty() => {}
        Likeness::None => return Err(another()),
    }
    let is_it = |(layer, diff_id): (&Descriptor, &DiffId)| {
        let (known, blob) = {
            let state = inner.state();
            let known =
                state.known.diff_id(&layer.digest).or_else(|| Some(&state.placeholder_layers.get(&layer.digest)?.diff_id));
            (known.cloned(), state.blobs.get(&layer.digest).cloned())
        };
        let diff_id = diff_id.clone();
        async move {
            let found = match (known, blob) {
                (Some(known), _) => known,
                (None, Some(blob)) => {
                    let found = inner.diff_id(&blob.spool).await;
                    found.map_err(|error| Error::push("failed to read a layer that the daemon pushed").because(&error))?
                }
                // A registry has it, and whoever pulls it compares it.
                (None, None) => return Ok(()),
            };
            if found == diff_id { Ok(()) } else { Err(another()) }
        }
    };
    try_join_all(manifest.layers.iter().zip(diff_ids).map(is_it)).await.map(drop)
}

/// Returns the error for an image that is not what the daemon made.
fn another() -> Error {
    Error::push("failed to take the image from the daemon: another image was pushed to hakobi's local registry")
        .hint("run the build again, and look for a process on this host that connects to foreign ports")
}

/// Returns a manifest with its configuration.
///
/// # Errors
/// If these cannot be read, or have different numbers of layers.
async fn parts(inner: &Inner, raw: &RawManifest) -> Result<(Manifest, Bytes, ImageConfig)> {
    let manifest = raw.manifest().map_err(|error| unreadable("a manifest").because(&error))?;
    let config = config(inner, &manifest.config.digest).await?;
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|error| unreadable("an image configuration").because(&error))?;
    let diff_ids = parsed.rootfs.diff_ids.len();
    if diff_ids != manifest.layers.len() {
        let layers = manifest.layers.len();
        return Err(Error::push(format!("the daemon pushed {layers} layers, but the configuration has {diff_ids}")));
    }
    Ok((manifest, config, parsed))
}

fn unreadable(what: &str) -> Error {
    Error::push(format!("failed to read {what} that the daemon pushed"))
}

async fn image(inner: &Inner, raw: &RawManifest, made: &Made, annotations: &BTreeMap<String, String>) -> Result<PreparedImage> {
    let (manifest, config, parsed) = Box::pin(parts(inner, raw)).await?;
    let diff_ids = parsed.rootfs.diff_ids;
    Box::pin(compare(inner, raw, made, &manifest, &diff_ids)).await?;
    Box::pin(inner.ask(&manifest.layers)).await;
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        layers.push(settle(inner, layer, diff_id).await?);
    }
    let zstd = layers.iter().any(|layer| layer.media_type == media_type::OCI_LAYER_ZSTD);
    // Docker's own manifests support neither zstd nor annotations.
    let oci = zstd || !annotations.is_empty() || raw.media_type == media_type::OCI_MANIFEST;
    let layers: Vec<Descriptor> = layers.into_iter().map(|layer| retyped(layer, oci)).collect();
    // The classic builder mixes the types of both families; the same blob keeps the daemon's type.
    let same = |(ours, theirs): (&Descriptor, &Descriptor)| *ours == retyped(theirs.clone(), oci);
    // Without layers, the daemon writes `null`, but registries and clients require a list.
    let unchanged = !layers.is_empty() && layers.iter().zip(&manifest.layers).all(same);
    let manifest = if unchanged && annotations.is_empty() {
        raw.clone()
    } else {
        rewritten(raw, &layers, annotations, oci).map_err(|error| unreadable("a manifest").because(&error))?
    };
    Ok(PreparedImage { manifest, config, diff_ids, layers, platform: parsed.platform, inline_cache: parsed.inline_cache })
}

/// Returns the layer as the registries have it, or will have it.
async fn settle(inner: &Inner, layer: &Descriptor, diff_id: &DiffId) -> Result<Descriptor> {
    let known = inner.state().known.layer(diff_id).cloned();
    if let Some((descriptor, from)) = known {
        inner.copy(&descriptor, &from);
        return Ok(descriptor);
    }
    let arrived = inner.state().blobs.get(&layer.digest).cloned();
    // A layer that did not arrive is one that hakobi told the daemon it has.
    let Some(blob) = arrived else { return Ok(layer.clone()) };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => out_of_space_error(&error.to_string()),
        _ => Error::push("failed to forward a layer").because(&error),
    };
    let format = Format::detect(&transcode::head(&blob.spool, 4).await.map_err(failed)?);
    let source = inner.forward(&blob.spool).await.map_err(failed)?;
    let identity = source.identity().await.map_err(failed)?;
    let media_type = if format.differs_from(inner.compression) {
        match inner.compression {
            Compression::Gzip(_) => media_type::OCI_LAYER_GZIP.to_owned(),
            Compression::Zstd(_) => media_type::OCI_LAYER_ZSTD.to_owned(),
        }
    } else {
        layer.media_type.clone()
    };
    Ok(Descriptor { media_type, digest: identity.digest, size: identity.size, ..layer.clone() })
}

async fn config(inner: &Inner, digest: &Digest) -> Result<Bytes> {
    let (archived, blob) = {
        let state = inner.state();
        (state.configs.get(digest).cloned(), state.blobs.get(digest).cloned())
    };
    if let Some(config) = archived {
        return Ok(config);
    }
    let Some(blob) = blob else { return Box::pin(inner.read(digest, CONFIG_LIMIT)).await };
    if blob.identity.size > CONFIG_LIMIT {
        return Err(Error::push(format!(
            "the image's configuration has {} bytes; the limit is {CONFIG_LIMIT}",
            blob.identity.size
        )));
    }
    let mut bytes = Vec::new();
    let read = async { blob.spool.open(0).await?.read_to_end(&mut bytes).await };
    read.await.map_err(|error| Error::push("failed to read the image's configuration").because(&error))?;
    Ok(bytes.into())
}

/// Returns the manifest with other layers; its other fields stay.
fn rewritten(
    raw: &RawManifest,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    oci: bool,
) -> serde_json::Result<RawManifest> {
    let mut manifest: serde_json::Map<String, Value> = serde_json::from_slice(&raw.bytes)?;
    manifest.insert("layers".to_owned(), serde_json::to_value(layers)?);
    let mut media_type = raw.media_type.clone();
    if oci {
        media_type = media_type::OCI_MANIFEST.to_owned();
        manifest.insert("mediaType".to_owned(), media_type.clone().into());
        if let Some(config) = manifest.get_mut("config").and_then(Value::as_object_mut) {
            config.insert("mediaType".to_owned(), media_type::OCI_CONFIG.into());
        }
    }
    if !annotations.is_empty() {
        let all = manifest.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(all) = all.as_object_mut() {
            all.extend(annotations.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
        }
    }
    RawManifest::from_json(&media_type, &manifest)
}
