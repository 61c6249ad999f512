//! The index of stage images.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::joined::{Part, join};
use crate::domain::{Descriptor, INLINE_CACHE_KEY, ImageRef, Index, InlineCache, RawManifest, Repository, media_type};
use crate::error::{Error, Result};
use crate::graph::Step;
use crate::handover::{JOINED_ANNOTATION, KnownImage, PreparedImage, STAGE_ANNOTATION};
use crate::push::{Pusher, RepositoryBlobs};

/// Returns the image with all available cache records. These are its own, completed along its chain of steps, and missing ones of
/// `older`, for the layers that both have from the base up.
///
/// # Errors
/// If its configuration or manifest cannot be written again.
pub fn with_whole_cache(image: &PreparedImage, steps: &[Step], older: Option<&KnownImage>) -> Result<PreparedImage> {
    let Some(own) = image.inline_cache.as_deref().and_then(InlineCache::decode) else { return Ok(image.clone()) };
    let base_inputs: Vec<usize> = steps.iter().map(|step| step.base_input).collect();
    let mut whole = own.completed(&base_inputs, image.diff_ids.len());
    if let Some(older) = older
        && let Some(carried) = older.inline_cache.as_deref().and_then(InlineCache::decode)
    {
        let shared = image.diff_ids.iter().zip(&older.diff_ids).take_while(|(a, b)| a == b).count();
        whole = whole.merge(&carried, shared);
    }
    if whole.results() <= own.results() {
        return Ok(image.clone());
    }
    let broken = |error: serde_json::Error| Error::push("failed to write the image's configuration").because(&error);
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&image.config).map_err(broken)?;
    let encoded = whole.encode();
    config.insert(INLINE_CACHE_KEY.to_owned(), Value::String(encoded.clone()));
    let config = Bytes::from(serde_json::to_vec(&config).map_err(broken)?);
    let mut manifest: serde_json::Map<String, Value> = serde_json::from_slice(&image.manifest.bytes).map_err(broken)?;
    if let Some(descriptor) = manifest.get_mut("config").and_then(Value::as_object_mut) {
        descriptor.insert("digest".to_owned(), Value::String(crate::domain::Digest::hash(&config).to_string()));
        descriptor.insert("size".to_owned(), Value::from(config.len()));
    }
    let manifest = RawManifest::from_json(&image.manifest.media_type, &manifest).map_err(broken)?;
    Ok(PreparedImage { manifest, config, inline_cache: Some(encoded), ..image.clone() })
}

/// Pushes an index of these images, by stage, and of the images of the last index that are still useful. The released image comes
/// first; its layers are in `released_in`. Returns the blobs that are new. The stages' own layers are already being uploaded.
///
/// # Errors
/// If the registry does not accept it.
pub async fn put_index(
    pusher: &Pusher,
    reference: &ImageRef,
    released_in: &Repository,
    images: &[(String, PreparedImage)],
    earlier: &[KnownImage],
) -> Result<RepositoryBlobs> {
    let mut manifests = Vec::new();
    let mut children = Vec::new();
    let parts = images
        .iter()
        .map(|(_, image)| Part { layers: &image.layers, diff_ids: &image.diff_ids, inline_cache: image.inline_cache.as_deref() })
        .chain(earlier.iter().map(|image| Part {
            layers: &image.manifest.layers,
            diff_ids: &image.diff_ids,
            inline_cache: image.inline_cache.as_deref(),
        }));
    if let Some((joined, config)) = join(&parts.collect::<Vec<_>>()) {
        pusher.upload_config(config);
        let released = images.first().map(|(_, image)| image.manifest.digest().to_string()).unwrap_or_default();
        let annotations = BTreeMap::from([(JOINED_ANNOTATION.to_owned(), released)]);
        manifests.push(Descriptor { annotations, ..joined.descriptor() });
        children.push(joined);
    }
    for layer in images.first().iter().flat_map(|(_, image)| &image.layers) {
        pusher.copy(layer, released_in);
    }
    for (stage, image) in images {
        pusher.upload_config(image.config.clone());
        manifests.push(of_stage(stage, image));
        children.push(image.manifest.clone());
    }
    for image in earlier {
        manifests.push(Descriptor { annotations: image.annotations.clone(), ..image.raw.descriptor() });
    }
    let index = index(manifests).map_err(|error| Error::push("failed to write the index of the cache").because(&error))?;
    let blobs = pusher.finish_blobs().await?;
    for outcome in pusher.put(&index, &children, std::slice::from_ref(reference)).await {
        outcome.state?;
    }
    Ok(blobs.total())
}

/// Returns the index of an image without stages.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn only_image(image: &PreparedImage) -> serde_json::Result<RawManifest> {
    index(vec![of_stage("", image)])
}

fn of_stage(stage: &str, image: &PreparedImage) -> Descriptor {
    Descriptor {
        platform: Some(image.platform.clone().into()),
        annotations: BTreeMap::from([(STAGE_ANNOTATION.to_owned(), stage.to_owned())]),
        ..image.manifest.descriptor()
    }
}

fn index(manifests: Vec<Descriptor>) -> serde_json::Result<RawManifest> {
    let index =
        Index { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() };
    RawManifest::from_json(media_type::OCI_INDEX, &index)
}
