//! The images of an OCI layout's `index.json`, and of its nested indexes.

use super::contents::Contents;
use super::error::{Error, Result};
use super::listing::{INDEX, Listed, json, manifest_bytes};
use crate::domain::{Descriptor, Digest, ImageRef, Index, RawManifest, media_type};

/// The maximum depth of nested indexes. The containerd store uses two.
const DEPTH_LIMIT: usize = 4;

/// The maximum number of descriptors in all indexes together.
const DESCRIPTORS_LIMIT: usize = 10_000;

/// The full name, as containerd writes it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The tag or the name (OCI image spec, "Pre-Defined Annotation Keys").
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that BuildKit adds to attestations.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

struct Walk<'a> {
    contents: &'a Contents,
    seen: usize,
    found: Vec<Listed>,
}

/// Returns the images of `index.json`. The list is empty if there is no such file.
///
/// # Errors
/// If the file or an index in it is not readable, or an image that it names is missing.
pub(super) fn listed(contents: &Contents) -> Result<Vec<Listed>> {
    if contents.find(INDEX).is_none() {
        return Ok(Vec::new());
    }
    let index: Index = json(contents, INDEX)?;
    let mut walk = Walk { contents, seen: 0, found: Vec::new() };
    for child in &index.manifests {
        walk.descriptor(child, &tags(child), 0)?;
    }
    Ok(walk.found)
}

impl Walk<'_> {
    fn descriptor(&mut self, child: &Descriptor, tags: &[ImageRef], depth: usize) -> Result<()> {
        self.seen += 1;
        if self.seen > DESCRIPTORS_LIMIT || depth > DEPTH_LIMIT {
            return Err(Error::malformed(format!(
                "the archive has too many nested indexes: the limits are {DESCRIPTORS_LIMIT} manifests and {DEPTH_LIMIT} levels"
            )));
        }
        if child.annotations.contains_key(REFERENCE_TYPE)
            || child.platform.as_ref().is_some_and(|platform| platform.platform.os == "unknown")
        {
            return Ok(());
        }
        let path = blob_path(&child.digest);
        if depth > 0 && self.contents.find(&path).is_none() {
            // The containerd store saves the index unchanged, but only the pulled platforms.
            return Ok(());
        }
        let bytes = manifest_bytes(self.contents, &path)
            .map_err(|why| Error::malformed(format!("the archive's {INDEX} names {path}, which {why}")))?;
        // The entry of a blob may be a link.
        if Digest::hash(&bytes) != child.digest {
            return Err(Error::malformed(format!("the bytes of the archive's {path} have the digest {}", Digest::hash(&bytes))));
        }
        // The bytes decide the type: some tools write wrong descriptors.
        let media_type = RawManifest::media_type_of(&bytes).unwrap_or_else(|| child.media_type.clone());
        let raw = RawManifest { media_type, bytes };
        if raw.is_index() {
            let index: Index = json(self.contents, &path)?;
            for below in &index.manifests {
                self.descriptor(below, tags, depth + 1)?;
            }
            return Ok(());
        }
        let manifest =
            raw.manifest().map_err(|error| Error::malformed(format!("failed to read the archive's {path}: {error}")))?;
        // Charts, caches and similar artifacts have manifests too.
        if !matches!(&*manifest.config.media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "") {
            return Ok(());
        }
        let config = blob_path(&manifest.config.digest);
        let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        let absent = |path: &String| self.contents.find(path).is_none();
        if depth > 0 && (absent(&config) || layers.iter().any(absent)) {
            return Ok(());
        }
        self.found.push(Listed { tags: tags.to_vec(), config, layers, manifest: Some(raw) });
        Ok(())
    }
}

/// Returns the name in a descriptor's annotations, if it is a full name: skopeo may write only a tag, which names no image.
fn tags(child: &Descriptor) -> Vec<ImageRef> {
    let annotation = |key: &str| child.annotations.get(key);
    let name = annotation(CONTAINERD_NAME).or_else(|| annotation(REF_NAME).filter(|name| name.contains([':', '/'])));
    let parsed = name.and_then(|name| name.parse::<ImageRef>().ok()).map(ImageRef::with_default_tag);
    parsed.filter(|name| name.tag.is_some()).into_iter().collect()
}

/// Returns a blob's name in an OCI layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
