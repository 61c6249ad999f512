//! Manifests, indexes and image configurations (OCI image spec; Docker's schema 2 has the same fields).
//!
//! A manifest is what its bytes are: it travels as [`RawManifest`], and the structs here are views of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DiffId, Digest, Platform};

/// The media types that images are made of.
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

    /// BuildKit's cache configuration: the records of a cache and the layers they speak of.
    pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

    /// Whether this is an index or manifest list.
    #[must_use]
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_INDEX)
    }
}

/// What a manifest says of a blob or of another manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are; empty in a few old manifests.
    #[serde(default)]
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Free texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where else the blob may be had (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations: BTreeMap::new(), urls: Vec::new() }
    }

    /// The same without platform and annotations, which are those of the place where it stood.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { platform: None, annotations: BTreeMap::new(), ..self }
    }
}

/// The platform in an index's descriptor. `os.version` and features are carried along unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Operating system and processor.
    #[serde(flatten)]
    pub platform: Platform,
    /// What else was there.
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
    /// Of this manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// From the base upwards. Go writes `null` for a list without elements.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Free texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Of this index.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// One for each platform, or whatever the index groups.
    pub manifests: Vec<Descriptor>,
    /// Free texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The part of an image configuration that hakobi reads. The bytes themselves are kept beside it, never written again from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// What the image is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// Its layers.
    pub rootfs: RootFs,
    /// BuildKit's inline cache, as base64 of JSON.
    #[serde(default, rename = "moby.buildkit.cache.v0", skip_serializing_if = "Option::is_none")]
    pub inline_cache: Option<String>,
}

/// The layers of an image, uncompressed.
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
    /// As the registry sent it, or as it will be sent.
    pub media_type: String,
    /// The very bytes that the digest is of.
    pub bytes: Bytes,
}

impl RawManifest {
    /// The bytes of this value as compact JSON.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub fn from_json(media_type: &str, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { media_type: media_type.to_owned(), bytes: serde_json::to_vec(value)?.into() })
    }

    /// What these bytes say they are, or by what they hold where they do not say (OCI image spec: `mediaType` should be there).
    /// `None` if they are no manifest.
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

    /// Of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::hash(&self.bytes)
    }

    /// What an index or report says of it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest(), self.bytes.len() as u64)
    }

    /// Whether this is an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// Read as an image manifest.
    ///
    /// # Errors
    /// If it is none.
    pub fn manifest(&self) -> Result<Manifest, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// Read as an index.
    ///
    /// # Errors
    /// If it is none.
    pub fn index(&self) -> Result<Index, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}

/// A layer with the media type that it has in a manifest of the OCI's family, or of Docker's.
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
