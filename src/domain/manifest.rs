//! Manifests, indexes and image configurations (OCI image spec; Docker's schema 2 has the same fields).
//!
//! The bytes of a manifest define it. They are passed around as [`RawManifest`], and the structs here are views of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DiffId, Digest, Platform};

/// The media types of images.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, an uncompressed tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, an uncompressed tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// BuildKit's cache configuration: the records of a cache and their layers.
    pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

    /// Returns whether this is an index or manifest list.
    #[must_use]
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_INDEX)
    }
}

/// A manifest's reference to a blob or to another manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; empty in a few old manifests.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// The platform of the manifest, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Other locations of the blob (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Returns a descriptor without platform and annotations.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations: BTreeMap::new(), urls: Vec::new() }
    }

    /// Returns the descriptor without platform and annotations, because these belong to its place in a manifest.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { platform: None, annotations: BTreeMap::new(), ..self }
    }
}

/// The platform in an index's descriptor. `os.version` and features are copied without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Operating system and processor.
    #[serde(flatten)]
    pub platform: Platform,
    /// All other fields.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl From<Platform> for DescriptorPlatform {
    fn from(platform: Platform) -> Self {
        Self { platform, other: BTreeMap::new() }
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers from the base upwards. Go writes `null` for an empty list.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this index.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// One manifest for each platform, or other manifests that the index groups.
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The part of an image configuration that hakobi reads. hakobi keeps the bytes too, and never writes them again from this struct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The platform of the image.
    #[serde(flatten)]
    pub platform: Platform,
    /// Its layers.
    pub rootfs: RootFs,
    /// BuildKit's inline cache, as base64 of JSON.
    #[serde(default, rename = "moby.buildkit.cache.v0", skip_serializing_if = "Option::is_none")]
    pub inline_cache: Option<String>,
}

/// The diff IDs of an image's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// From the base upwards. Absent or `null` in configurations without layers.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<DiffId>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A manifest or index as its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The media type, as in the registry.
    pub media_type: String,
    /// The exact bytes that the digest is computed from.
    pub bytes: Bytes,
}

impl RawManifest {
    /// Makes a manifest of this value as compact JSON.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub fn from_json(media_type: &str, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { media_type: media_type.to_owned(), bytes: serde_json::to_vec(value)?.into() })
    }

    /// Returns the media type of these bytes: from their `mediaType`, which should be there (OCI image spec), or from their fields.
    /// Returns `None` if they are no manifest.
    #[must_use]
    pub fn media_type_of(bytes: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let head: Head = serde_json::from_slice(bytes).ok()?;
        let held = match (head.manifests, head.layers) {
            (Some(_), _) => Some(media_type::OCI_INDEX),
            (None, Some(_)) => Some(media_type::OCI_MANIFEST),
            (None, None) => None,
        };
        head.media_type.filter(|told| !told.is_empty()).or_else(|| held.map(str::to_owned))
    }

    /// Returns the digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::hash(&self.bytes)
    }

    /// Returns the descriptor of this manifest for an index or report.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest(), self.bytes.len() as u64)
    }

    /// Returns whether this is an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// Parses an image manifest.
    ///
    /// # Errors
    /// If it is none.
    pub fn manifest(&self) -> Result<Manifest, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// Parses an index.
    ///
    /// # Errors
    /// If it is none.
    pub fn index(&self) -> Result<Index, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}

/// Returns a layer with the media type of OCI manifests, or of Docker's.
#[must_use]
pub fn retyped(layer: Descriptor, oci: bool) -> Descriptor {
    const PAIRS: [(&str, &str); 2] =
        [(media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP), (media_type::OCI_LAYER, media_type::DOCKER_LAYER)];
    let other = PAIRS.iter().find_map(|(ours, dockers)| match oci {
        true => (layer.media_type == *dockers).then_some(*ours),
        false => (layer.media_type == *ours).then_some(*dockers),
    });
    match other {
        Some(media_type) => Descriptor { media_type: media_type.to_owned(), ..layer },
        None => layer,
    }
}
