//! What a build used of its cache. `hakobi cache prune` keeps what builds used of late: a store does not know when it was read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cache::keys::{disk_key, inputs_key, mounts_key};
use crate::domain::{Digest, seconds_now};
use crate::store::{Blobs, Fault, Name, Result, read_undamaged};
use crate::transfer::BytesSource;

/// The version of the format.
const VERSION: u32 = 1;

/// Largest list, in bytes.
const LIMIT: u64 = 32 << 20;

/// A day, in seconds.
pub const DAY: u64 = 24 * 60 * 60;

/// What a build used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    version: u32,
    /// The names of records and pointers.
    records: BTreeSet<String>,
    /// Whether it looked at all steps. A build of an unchanged image reads few records, and the next change needs all of them.
    #[serde(default)]
    pub is_whole: bool,
}

impl Uses {
    /// Returns the names of records and pointers.
    #[must_use]
    pub fn names(&self) -> BTreeSet<Name> {
        self.records.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// Writes what this run used, in the own scope or a fallback, once a day for the same names.
///
/// # Errors
/// If the store does not answer.
pub async fn save_uses(blobs: &Blobs, scope: &str, image: &str, tag: &str) -> Result<()> {
    let (used, is_whole) = blobs.used();
    if used.is_empty() {
        return Ok(());
    }
    // Records of the image that only some builds read.
    let of_image =
        [inputs_key(image, tag).digest().clone(), mounts_key(image, tag).digest().clone(), disk_key(image, tag).digest().clone()];
    let image = format!("{image}:{tag}");
    let also = of_image.iter().map(|key| Name::record(scope, key)).chain([Name::reference(scope, &image)]);
    let records: BTreeSet<String> = used.into_iter().chain(also).map(|name| name.as_str().to_owned()).collect();
    let build = Digest::hash(records.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes());
    let name = Name::used(scope, &image, seconds_now() / DAY, &build);
    if blobs.store().size(&name).await?.is_some() {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&Uses { version: VERSION, records, is_whole }).unwrap_or_default();
    match blobs.store().write(&name, &BytesSource::new(bytes.into())).await {
        // A role for records alone. What it saves is then pruned as if no build used it.
        Err(error) if error.fault() == Fault::Denied => {
            tracing::info!(%error, "failed to write which records this build used");
            Ok(())
        }
        written => written,
    }
}

/// A list of used records, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsesList {
    /// It can be read.
    Right(Uses),
    /// It has another version: another hakobi needs it.
    Foreign,
    /// Its bytes are no list.
    Damaged,
    /// Another run removed it.
    Gone,
}

/// Reads a list of used records.
///
/// # Errors
/// If the store does not answer.
pub async fn read_uses(blobs: &Blobs, name: &Name) -> Result<UsesList> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Some(bytes) = read_undamaged(blobs.store(), name, LIMIT).await? else { return Ok(UsesList::Gone) };
    Ok(match (serde_json::from_slice::<Version>(&bytes), serde_json::from_slice::<Uses>(&bytes)) {
        (Ok(Version { version: VERSION }), Ok(uses)) => UsesList::Right(uses),
        (Ok(Version { version }), _) if version != VERSION => UsesList::Foreign,
        _ => UsesList::Damaged,
    })
}
