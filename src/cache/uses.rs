//! What a build used of its cache. `hakobi cache prune` keeps what builds used of late: a store does not know when it was read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{Digest, seconds_now};
use crate::store::{Blobs, Fault, Name, Result, read_small};
use crate::transfer::BytesSource;

/// The version of the format. Lists of another version count as unknown.
const VERSION: u32 = 1;

/// Largest list, in bytes.
const LIMIT: u64 = 4 << 20;

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// The records that a build used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Uses {
    version: u32,
    records: BTreeSet<String>,
}

/// Writes which records this run used, in the own scope or a fallback, once a day for the same records. `image` has its tag.
///
/// # Errors
/// If the store does not answer.
pub async fn save_uses(blobs: &Blobs, scope: &str, image: &str) -> Result<()> {
    let records: BTreeSet<String> = blobs.used().into_iter().map(|name| name.as_str().to_owned()).collect();
    if records.is_empty() {
        return Ok(());
    }
    let build = Digest::hash(records.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes());
    let name = Name::used(scope, image, seconds_now() / DAY, &build);
    if blobs.store().size(&name).await?.is_some() {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&Uses { version: VERSION, records }).unwrap_or_default();
    match blobs.store().write(&name, &BytesSource::new(bytes.into())).await {
        // A role for records alone. What it saves is then pruned as if no build used it.
        Err(error) if error.fault() == Fault::Denied => {
            tracing::info!(%error, "failed to write which records this build used");
            Ok(())
        }
        written => written,
    }
}

/// Reads a list of used records. Returns `None` if it is missing, damaged or of another version.
///
/// # Errors
/// If the store does not answer.
pub async fn read_uses(blobs: &Blobs, name: &Name) -> Result<Option<BTreeSet<Name>>> {
    let bytes = match read_small(blobs.store(), name, LIMIT).await {
        Err(error) if error.fault() == Fault::Damaged => None,
        read => read?,
    };
    let uses = bytes.and_then(|bytes| serde_json::from_slice::<Uses>(&bytes).ok()).filter(|uses| uses.version == VERSION);
    Ok(uses.map(|uses| uses.records.iter().filter_map(|name| name.parse().ok()).collect()))
}
