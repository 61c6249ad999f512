//! The saved disks of daemons of hakobi's own. As with cache mounts, hakobi computes the key of the record from the image's pointer.

use std::collections::BTreeSet;

use serde::Serialize;

use super::listed::Listed;
use crate::cache::keys::disk_key;
use crate::disk::{self, SavedDisk};
use crate::domain::Digest;
use crate::plan::Records;
use crate::store::{Blobs, Name, Result};

/// The saved disk of an image's last build.
#[derive(Debug, Serialize)]
pub struct CachedDisk {
    /// The version of Docker.
    pub docker: String,
    /// How many builds it has seen.
    pub builds: u64,
    /// The size of its blobs in the store, in bytes. Disks share blobs.
    pub packed: u64,
    /// Blobs that it needs and the store lacks.
    pub missing: Vec<Digest>,
    #[serde(skip)]
    pub record: Name,
    #[serde(skip)]
    pub blobs: BTreeSet<Digest>,
}

/// Returns the saved disk of an image in a scope. Returns `None` if there is none.
///
/// # Errors
/// If its record or its lists cannot be read. A damaged list counts as one that names no chunks.
pub async fn saved_disk(blobs: &Blobs, listed: &Listed, scope: &str, image: &str) -> Result<Option<CachedDisk>> {
    let Some((name, tag)) = image.rsplit_once(':') else { return Ok(None) };
    let key = disk_key(name, tag);
    let Some(record) = listed.names.get(&Name::record(scope, key.digest())) else { return Ok(None) };
    let Some(saved) = Records::look(blobs.store(), scope, &key).await? else { return Ok(None) };
    let Some(disk) = saved.disk else { return Ok(None) };
    let all = all_blobs(blobs, &disk).await?;
    Ok(Some(CachedDisk {
        docker: saved.daemon.split(' ').next().unwrap_or_default().to_owned(),
        builds: saved.builds,
        packed: listed.bytes(&all),
        missing: all.iter().filter(|digest| !listed.sizes.contains_key(digest)).cloned().collect(),
        record: record.clone(),
        blobs: all,
    }))
}

async fn all_blobs(blobs: &Blobs, disk: &SavedDisk) -> Result<BTreeSet<Digest>> {
    let nodes = disk.nodes.iter().cloned();
    match disk.load(blobs).await {
        Ok(list) => Ok(nodes.chain(list.chunks().iter().flatten().cloned()).collect()),
        Err(disk::Error::Store(error)) => Err(error),
        Err(_) => Ok(nodes.collect()),
    }
}
