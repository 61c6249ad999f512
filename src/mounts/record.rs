//! The record of the cache mounts of an image's last build.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::saved::SavedMount;
use crate::domain::{Descriptor, DiffId, Digest};

/// The cache mounts of an image as its last build left them, with the times of the files that it saw. All belong to one build: a tool
/// that compares times finds the same order as on a machine that kept both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountsRecord {
    /// The ID of the daemon that has them.
    pub daemon: String,
    /// The blob with the times of the context's files, as they were sent.
    pub times: Descriptor,
    /// The latest time of a change of content in any mount, in nanoseconds since 1970.
    pub newest: i64,
    /// The mounts, by [`mount_key`].
    pub mounts: BTreeMap<String, CarriedMount>,
}

/// A cache mount in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarriedMount {
    /// Its ID in BuildKit.
    pub id: String,
    /// Its content.
    pub saved: SavedMount,
    /// The layers that its commands saw, without those of base images.
    #[serde(default)]
    pub below: BTreeSet<DiffId>,
    /// What it costs, and what it is worth.
    #[serde(default)]
    pub cost: MountCost,
}

/// A loss of so many seconds is not worth a decision: no two runs take the same time.
const NEGLIGIBLE: f64 = 2.0;

/// What bringing a mount in costs, and what it is worth, as measured; in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MountCost {
    /// How long it took to bring it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bring: Option<f64>,
    /// How long its steps took with an empty mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<f64>,
    /// How long its steps took with the mount as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<f64>,
}

impl MountCost {
    /// Returns whether bringing the mount in takes longer, by more than a little, than its steps gain by it. What was not measured
    /// counts as worth it.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!((self.bring, self.cold, self.warm), (Some(bring), Some(cold), Some(warm)) if bring > (cold - warm).max(0.0) + NEGLIGIBLE)
    }
}

impl MountsRecord {
    /// Returns the blobs that the record names.
    pub fn blobs(&self) -> Vec<Digest> {
        let mounts = self.mounts.values().flat_map(|mount| mount.saved.blobs());
        std::iter::once(&self.times).chain(mounts).map(|blob| blob.digest.clone()).collect()
    }
}

/// Returns the key of a mount: BuildKit's ID of the cache, and the base that it begins with, which is part of its identity there.
#[must_use]
pub fn mount_key(id: &str, base: Option<&str>, selector: &str) -> String {
    match base {
        None => id.to_owned(),
        Some(base) => format!("{id} {base} {selector}"),
    }
}

/// Returns the ID of a mount as the Dockerfile has it. BuildKit puts a namespace and a slash before it.
#[must_use]
pub fn shown_id(id: &str) -> &str {
    id.strip_prefix('/').filter(|id| !id.is_empty()).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_dockerfile() {
        for (id, shown) in [("/objects", "objects"), ("//root/.cache", "/root/.cache"), ("team//x", "team//x"), ("/", "/")] {
            assert_eq!(shown_id(id), shown);
        }
    }

    #[test]
    fn a_mount_is_worth_it_until_measured_otherwise() {
        let cost = |bring, cold, warm| MountCost { bring, cold, warm };
        assert!(!cost(Some(60.0), None, None).is_loss());
        assert!(!cost(Some(60.0), Some(10.0), None).is_loss());
        assert!(!cost(Some(10.0), Some(100.0), Some(5.0)).is_loss());
        assert!(cost(Some(60.0), Some(30.0), Some(20.0)).is_loss());
        assert!(cost(Some(60.0), Some(30.0), Some(40.0)).is_loss());
        assert!(!cost(Some(1.0), Some(3.0), Some(4.0)).is_loss(), "too small to decide");
    }
}
