//! The saved cache mounts of a store. No listing tells their record from others. An image and its mounts have the same name, so hakobi
//! computes the key of the record from the image's pointer.

use serde::{Serialize, Serializer};

use super::listed::Listed;
use crate::cache::keys::mounts_key;
use crate::domain::Digest;
use crate::mounts::SavedMount;
use crate::mounts::record::shown_id;
use crate::plan::Records;
use crate::store::{Blobs, Name, Result};

/// The cache mounts of an image's last build.
#[derive(Debug, Default)]
pub struct CachedMounts {
    /// The record's name. `None` if there are no mounts.
    pub record: Option<Name>,
    pub all: Vec<CachedMount>,
    /// The blobs of all mounts, and the one with the times of files.
    pub blobs: Vec<Digest>,
}

/// A saved cache mount.
#[derive(Debug, Serialize)]
pub struct CachedMount {
    /// The ID in the Dockerfile.
    pub id: String,
    /// The number of files.
    pub files: u64,
    /// The size of their content, in bytes.
    pub bytes: u64,
    /// The size of its blobs in the store, in bytes. Mounts share blobs.
    pub packed: u64,
    /// Blobs that the mount needs and the store lacks.
    pub missing: Vec<Digest>,
    #[serde(skip)]
    pub saved: SavedMount,
}

/// Returns the saved mounts of an image in a scope.
///
/// # Errors
/// If their record cannot be read.
pub async fn saved_mounts(blobs: &Blobs, listed: &Listed, scope: &str, image: &str) -> Result<CachedMounts> {
    let none = CachedMounts::default();
    let Some((name, tag)) = image.rsplit_once(':') else { return Ok(none) };
    let key = mounts_key(name, tag);
    // A name that is too long for a pointer is not known, and so its record does not exist.
    let Some(object) = listed.names.get(&Name::record(scope, key.digest())) else { return Ok(none) };
    let Some(record) = Records::look(blobs.store(), scope, &key).await? else { return Ok(none) };
    let blobs = record.blobs();
    let mount = |id: &str, saved: SavedMount| CachedMount {
        id: shown_id(id).to_owned(),
        files: saved.files,
        bytes: saved.bytes,
        packed: listed.bytes(saved.blobs().map(|blob| &blob.digest)),
        missing: saved.blobs().map(|blob| blob.digest.clone()).filter(|digest| !listed.sizes.contains_key(digest)).collect(),
        saved,
    };
    let all = record.mounts.into_values().map(|carried| mount(&carried.id, carried.saved)).collect();
    Ok(CachedMounts { record: Some(object.clone()), all, blobs })
}

/// In JSON, the mounts are a list.
impl Serialize for CachedMounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}
