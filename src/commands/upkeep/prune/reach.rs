//! The blobs that records and pointers need.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use crate::domain::{Digest, RawManifest};
use crate::plan::LARGE;
use crate::store::{Blobs, Fault, Name, Result, read_small};

/// How many objects are read at once.
const AT_ONCE: usize = 32;

/// Largest manifest, in bytes.
const SMALL: u64 = 4 << 20;

/// The blobs that objects need, each read once.
pub(super) struct Reach<'a> {
    blobs: &'a Blobs,
    /// The sizes of all blobs, in bytes.
    sizes: &'a BTreeMap<Digest, u64>,
    known: BTreeMap<Name, BTreeSet<Digest>>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(blobs: &'a Blobs, sizes: &'a BTreeMap<Digest, u64>) -> Self {
        Self { blobs, sizes, known: BTreeMap::new() }
    }

    /// Returns the blobs that an object needs and the store has.
    pub(super) async fn of(&mut self, name: &Name) -> Result<BTreeSet<Digest>> {
        self.read([name]).await?;
        Ok(self.known.get(name).cloned().unwrap_or_default())
    }

    /// Returns how many bytes these objects need that are not used yet.
    pub(super) async fn more(&mut self, objects: &BTreeSet<Name>, used: &BTreeSet<Digest>) -> Result<u64> {
        self.read(objects).await?;
        let all: BTreeSet<&Digest> = objects.iter().filter_map(|name| self.known.get(name)).flatten().collect();
        Ok(all.into_iter().filter(|digest| !used.contains(*digest)).filter_map(|digest| self.sizes.get(digest)).sum())
    }

    /// Adds the blobs that these objects need. Returns the bytes of the new ones.
    pub(super) async fn add(&mut self, objects: &BTreeSet<Name>, used: &mut BTreeSet<Digest>) -> Result<u64> {
        let more = self.more(objects, used).await?;
        used.extend(objects.iter().filter_map(|name| self.known.get(name)).flatten().cloned());
        Ok(more)
    }

    async fn read<'b>(&mut self, names: impl IntoIterator<Item = &'b Name>) -> Result<()> {
        let new: Vec<Name> = names.into_iter().filter(|name| !self.known.contains_key(*name)).cloned().collect();
        let blobs = self.blobs;
        let read = stream::iter(new).map(|name| async move { Ok((blobs_of(blobs, &name).await?, name)) });
        let read: Vec<(BTreeSet<Digest>, Name)> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        for (mut of_name, name) in read {
            of_name.retain(|digest| self.sizes.contains_key(digest));
            self.known.insert(name, of_name);
        }
        Ok(())
    }
}

/// Returns all digests that an object names, and those in the manifests that it names. A record of any kind and version counts.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn blobs_of(blobs: &Blobs, name: &Name) -> Result<BTreeSet<Digest>> {
    let bytes = match read_small(blobs.store(), name, LARGE).await {
        Err(error) if error.fault() == Fault::Damaged => None,
        read => read?,
    };
    let Some(value) = bytes.and_then(|bytes| parsed(&bytes)) else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    digests(&value, &mut found);
    // A pointer, and the record of an image.
    let manifests = [value.get("digest"), value.pointer("/record/manifest/digest")];
    let mut open: Vec<Digest> = manifests.into_iter().flatten().filter_map(|digest| digest.as_str()?.parse().ok()).collect();
    let mut followed = BTreeSet::new();
    while let Some(digest) = open.pop() {
        if !followed.insert(digest.clone()) {
            continue;
        }
        let Some(bytes) = blobs.read(&digest, SMALL).await.ok().flatten() else { continue };
        let Some(media_type) = RawManifest::media_type_of(&bytes) else { continue };
        if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
            digests(&value, &mut found);
        }
        let raw = RawManifest { media_type, bytes };
        if raw.is_index()
            && let Ok(index) = raw.index()
        {
            open.extend(index.manifests.into_iter().map(|child| child.digest));
        }
    }
    found.extend(followed);
    Ok(found)
}

/// Returns the JSON of a pointer or of a compressed record.
fn parsed(bytes: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Some(value);
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(LARGE).read_to_end(&mut plain).ok()?;
    serde_json::from_slice(&plain).ok()
}

fn digests(value: &Value, found: &mut BTreeSet<Digest>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Digest>().ok()),
        Value::Array(values) => values.iter().for_each(|value| digests(value, found)),
        Value::Object(pairs) => pairs.iter().for_each(|(key, value)| {
            found.extend(key.parse::<Digest>().ok());
            digests(value, found);
        }),
        _ => {}
    }
}
