//! The lists of an archive, and the small files that contain them.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::contents::{Contents, Item};
use super::error::{Error, Result};
use crate::domain::{ImageRef, RawManifest};

/// The list of an OCI layout.
pub(super) const INDEX: &str = "index.json";

/// The maximum size of a manifest, index or list, in bytes: the limit of registries.
pub(super) const MANIFEST_LIMIT: usize = 4 << 20;

/// An image in a list: names of entries.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) tags: Vec<ImageRef>,
    pub(super) config: String,
    pub(super) layers: Vec<String>,
    pub(super) manifest: Option<RawManifest>,
}

/// Reads a list or manifest of the archive.
pub(super) fn json<T: DeserializeOwned>(contents: &Contents, path: &str) -> Result<T> {
    let bytes = bytes(contents, path, MANIFEST_LIMIT).map_err(|why| Error::malformed(format!("the archive's {path} {why}")))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::malformed(format!("failed to read the archive's {path}: {error}")))
}

/// Returns the bytes of a manifest or index that is a blob, or the reason why there are none.
pub(super) fn manifest_bytes(contents: &Contents, path: &str) -> Result<Bytes, String> {
    bytes(contents, path, MANIFEST_LIMIT)
}

/// Returns a JSON entry, or the reason why there is none.
pub(super) fn bytes(contents: &Contents, path: &str, limit: usize) -> Result<Bytes, String> {
    match contents.find(path) {
        None => Err("does not exist".to_owned()),
        Some(Item::Json(bytes)) if bytes.len() > limit => Err(format!("has {} bytes; the limit is {limit}", bytes.len())),
        Some(Item::Json(bytes)) => Ok(bytes.clone()),
        Some(item) => Err(format!("is {}", words(item))),
    }
}

pub(super) fn words(item: &Item) -> &str {
    match item {
        Item::Layer(_) => "a layer, not JSON",
        Item::Json(_) => "JSON, not a layer",
        Item::Empty => "empty",
        Item::Link(_) => "a link",
        Item::Other(what) => what,
    }
}
