//! The records of a written archive: `manifest.json` for Docker, manifests and `index.json` for the containerd store.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::index::{CONTAINERD_NAME, REF_NAME, blob_path};
use crate::domain::{Descriptor, ImageRef, Index, Manifest, RawManifest, media_type};

/// A row of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Row {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Row {
    /// Creates the row of an image with its layers as written.
    pub(super) fn new(tags: &[ImageRef], config: &Descriptor, layers: &[Descriptor]) -> Self {
        Self {
            config: blob_path(&config.digest),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        }
    }
}

/// Returns the manifest of an image: its own if that matches the written layers.
///
/// # Errors
/// If the manifest cannot be written as JSON.
pub(super) fn manifest(own: Option<&RawManifest>, config: &Descriptor, layers: &[Descriptor]) -> io::Result<RawManifest> {
    if let Some(fitting) = fitting(own, config, layers) {
        return Ok(fitting);
    }
    let media_type = media_type::OCI_MANIFEST.to_owned();
    let (config, layers, annotations) = (config.clone(), layers.to_vec(), BTreeMap::new());
    let manifest = Manifest { schema_version: 2, media_type, config, layers, annotations };
    Ok(RawManifest::from_json(media_type::OCI_MANIFEST, &manifest)?)
}

/// Returns the `index.json` of these manifests.
///
/// # Errors
/// If it cannot be written as JSON.
pub(super) fn index(manifests: Vec<Descriptor>) -> io::Result<Vec<u8>> {
    let media_type = media_type::OCI_INDEX.to_owned();
    Ok(serde_json::to_vec(&Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() })?)
}

/// Returns the image's own manifest. Returns `None` if its blobs differ from the written blobs.
fn fitting(manifest: Option<&RawManifest>, config: &Descriptor, layers: &[Descriptor]) -> Option<RawManifest> {
    let raw = manifest?;
    let parsed = raw.manifest().ok()?;
    let same = |own: &Descriptor, written: &Descriptor| own.digest == written.digest && own.size == written.size;
    let fits = same(&parsed.config, config)
        && parsed.layers.len() == layers.len()
        && parsed.layers.iter().zip(layers).all(|(own, written)| same(own, written));
    fits.then(|| raw.clone())
}

/// Returns the manifest's entries in `index.json`: one for each name, or one without a name.
pub(super) fn named(manifest: &RawManifest, tags: &[ImageRef]) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![manifest.descriptor()];
    }
    let named = tags.iter().map(|tag| {
        let mut descriptor = manifest.descriptor();
        descriptor.annotations.insert(CONTAINERD_NAME.to_owned(), tag.to_string());
        descriptor.annotations.insert(REF_NAME.to_owned(), tag.tag.clone().unwrap_or_default());
        descriptor
    });
    named.collect()
}

/// Returns the name with a tag and without a digest, as daemons accept it. Returns `None` if the name has only a digest.
pub(super) fn tagged(name: &ImageRef) -> Option<ImageRef> {
    let name = name.clone().with_default_tag();
    name.tag.is_some().then_some(ImageRef { digest: None, ..name })
}

/// Returns a layer's media type in an OCI manifest.
pub(super) fn oci(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        other => other,
    }
}
