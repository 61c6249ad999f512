//! The blobs that records and pointers need.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use crate::domain::{Digest, RawManifest};
use crate::plan::LARGE;
use crate::store::{Blobs, Fault, Name, Result, read_undamaged};

/// How many objects are read at once.
const AT_ONCE: usize = 32;

/// Larger records are not those of images, in bytes.
const SMALL: usize = 1 << 20;

/// Largest manifest, in bytes.
const LARGEST_MANIFEST: u64 = 16 << 20;

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

/// Returns all digests that an object names, and those in the manifests and in the lists of chunks that it names. A record of any kind and version counts.
///
/// # Errors
/// If the store does not answer.
async fn blobs_of(blobs: &Blobs, name: &Name) -> Result<BTreeSet<Digest>> {
    let bytes = read_undamaged(blobs.store(), name, LARGE).await?;
    let Some(plain) = bytes.and_then(|bytes| plain(&bytes)) else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    digests(&plain, &mut found);
    // A pointer, and the record of an image. Both are small.
    let value: Value = if plain.len() < SMALL { serde_json::from_slice(&plain).unwrap_or_default() } else { Value::Null };
    let manifests = [value.get("digest"), value.pointer("/record/manifest/digest")];
    let mut open: Vec<Digest> = manifests.into_iter().flatten().filter_map(|digest| digest.as_str()?.parse().ok()).collect();
    for node in nodes_of(&value) {
        match blobs.read(&node, LARGEST_MANIFEST).await {
            Err(error) if error.fault() == Fault::Damaged => {}
            read => read?.iter().for_each(|bytes| digests(bytes, &mut found)),
        }
    }
    let mut followed = BTreeSet::new();
    while let Some(digest) = open.pop() {
        if !followed.insert(digest.clone()) {
            continue;
        }
        let bytes = match blobs.read(&digest, LARGEST_MANIFEST).await {
            Err(error) if error.fault() == Fault::Damaged => None,
            read => read?,
        };
        let Some(bytes) = bytes else { continue };
        let Some(media_type) = RawManifest::media_type_of(&bytes) else { continue };
        digests(&bytes, &mut found);
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

/// Returns the blobs with the chunks of a daemon's disk, if this is the record of one.
fn nodes_of(value: &Value) -> BTreeSet<Digest> {
    let nodes = value.pointer("/record/disk/nodes").and_then(Value::as_array);
    nodes.into_iter().flatten().filter_map(|digest| digest.as_str()?.parse().ok()).collect()
}

/// Returns the bytes of a pointer or of a compressed record.
fn plain(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(b"{") {
        return Some(bytes.to_vec());
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(LARGE).read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// Finds all digests in a text, without parsing it: an index of paths is large.
fn digests(text: &[u8], found: &mut BTreeSet<Digest>) {
    const START: &[u8] = b"sha256:";
    const LENGTH: usize = START.len() + 64;
    let mut at = 0;
    while let Some(length) = text.get(at..).and_then(|rest| rest.windows(START.len()).position(|window| window == START)) {
        let digest = text.get(at + length..at + length + LENGTH).and_then(|digest| std::str::from_utf8(digest).ok());
        found.extend(digest.and_then(|digest| digest.parse::<Digest>().ok()));
        at += length + START.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_wherever_they_are() {
        let [one, other] = [b"one", b"two"].map(|text| Digest::hash(text));
        let text = format!("{{\"{one}\":[\"sha256:12\",\"sha256:sha256:\",\"x{other}x\"],\"end\":\"sha256:");
        let mut found = BTreeSet::new();
        digests(text.as_bytes(), &mut found);
        assert_eq!(found, BTreeSet::from([one, other]));
    }
}
