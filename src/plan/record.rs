//! The kinds of records: of a step, of files copied out of a stage, of an image, and others.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::record_key::RecordKey;
use crate::disk::DiskRecord;
use crate::domain::{ChainId, CopiedContentKey, Descriptor, DiffId, Digest, Hasher, OperationKey, PartialKey, StepKey};
use crate::mounts::record::MountsRecord;

/// The version of the records that this program reads and writes. A record of another version is a miss.
const VERSION: u32 = 2;

/// Most layers of a state. Docker accepts 127.
const MOST_LAYERS: usize = 1000;

/// Largest layer, in bytes.
const LARGEST_LAYER: u64 = 1 << 40;

/// Largest record of a few fields, in bytes, compressed and uncompressed.
const SMALL: u64 = 4 << 20;

/// Largest record of many files or of a whole graph, in bytes, compressed and uncompressed. hakobi writes no larger record.
pub const LARGE: u64 = 32 << 20;

/// A record that hakobi can read from a store. Anybody may have written it, so hakobi reads it within limits and checks it.
pub trait Record: DeserializeOwned + Send {
    /// Largest record that hakobi reads, in bytes, compressed and uncompressed.
    const LIMIT: u64 = SMALL;

    /// Returns whether the record is plausible by itself.
    fn is_sane(&self) -> bool {
        true
    }

    /// Returns the blobs that it names: they are in use as long as the record is.
    fn blobs(&self) -> Vec<Digest> {
        Vec::new()
    }
}

impl Record for StepRecord {
    fn is_sane(&self) -> bool {
        let mut known = HashMap::new();
        // One blob has only one diff ID and one size.
        let mut agrees = |layer: &Layer| {
            let (diff_id, size) = known.entry(layer.blob.digest.clone()).or_insert((layer.diff_id.clone(), layer.blob.size));
            *diff_id == layer.diff_id && *size == layer.blob.size
        };
        self.layers.len() <= MOST_LAYERS
            && self.layers.iter().all(|layer| (1..=LARGEST_LAYER).contains(&layer.blob.size) && agrees(layer))
    }

    fn blobs(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.blob.digest.clone()).collect()
    }
}

impl Record for CopiedContentRecord {}
impl Record for PartialKeyRecord {}
impl Record for DaemonRecord {}
impl Record for ProofRecord {}
impl Record for LayerRecord {}

impl Record for ImageRecord {
    fn blobs(&self) -> Vec<Digest> {
        vec![self.manifest.digest.clone()]
    }
}

impl Record for RemoteRecord {}
impl Record for PathRecord {}

impl Record for MountsRecord {
    fn is_sane(&self) -> bool {
        self.mounts.values().all(|mount| mount.saved.blobs().all(|blob| (1..=LARGEST_LAYER).contains(&blob.size)))
    }

    fn blobs(&self) -> Vec<Digest> {
        self.blobs()
    }
}

impl Record for DiskRecord {
    fn is_sane(&self) -> bool {
        self.is_sane()
    }
}

impl Record for RunsRecord {
    fn is_sane(&self) -> bool {
        let all = [&self.stock, &self.lazy];
        all.iter().all(|runs| runs.len() <= MOST_RUNS)
            && all.into_iter().flatten().all(|seconds| (0.0..=31_536_000.0).contains(seconds))
    }
}

impl Record for ColdRecord {
    fn is_sane(&self) -> bool {
        // A year.
        (0.0..=31_536_000.0).contains(&self.seconds)
    }
}

/// A layer of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob, as hakobi pushed it.
    pub blob: Descriptor,
    /// The digest of the uncompressed layer.
    pub diff_id: DiffId,
    /// When the layer was made, according to its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// The state after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// All its layers, from the base image up.
    pub layers: Vec<Layer>,
    /// When the step ran, in seconds of the Unix epoch; `None` if the daemon already had its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<u64>,
}

/// The content of files that a step copied out of another step's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedContentRecord {
    /// The digest of the copied content.
    pub content: Digest,
    /// The chain of the state that the files came from, because another run of the same step may make other files. `None` if that
    /// state was not saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
}

/// Says that the cache has a state of this partial key. States with equal partial keys have the same operations and inputs, apart
/// from the content of files copied out of stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialKeyRecord {}

/// The states of an image's graph that a daemon made itself: its own cache supplies these faster than any store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// The marker of a step in the daemon's cache, which shows that it is still the same cache.
    pub mark: String,
    /// The states, by their keys.
    pub states: Vec<StepKey>,
}

/// Says that the daemon made the same layer as hakobi for a kind of step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRecord {}

/// Says that a blob has this diff ID, because a daemon or hakobi made an image with it. A step's record counts only if all its
/// layers have such a record, because an overlay2 daemon does not check diff IDs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {}

/// The image of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest. The store has the manifest and the configuration as blobs.
    pub manifest: Descriptor,
}

/// A build of an image in which every step ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColdRecord {
    /// How long it took, in seconds.
    pub seconds: f64,
    /// When it ended, in seconds of the Unix epoch.
    pub ended: u64,
}

/// How many builds of each kind a [`RunsRecord`] has.
const MOST_RUNS: usize = 5;

/// How many builds of each kind are enough to compare them.
const ENOUGH_RUNS: usize = 3;

/// How long the last builds of an image took in which a command ran, in seconds. The latest is last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunsRecord {
    /// With the machine's daemon.
    pub stock: Vec<f64>,
    /// With a daemon of hakobi's own.
    pub lazy: Vec<f64>,
}

impl RunsRecord {
    /// Adds a build.
    pub fn add(&mut self, is_lazy: bool, seconds: f64) {
        let runs = if is_lazy { &mut self.lazy } else { &mut self.stock };
        runs.push(seconds);
        runs.drain(..runs.len().saturating_sub(MOST_RUNS));
    }

    /// Returns the medians of both kinds, in the order of the fields. Returns `None` if there are too few builds to compare them.
    #[must_use]
    pub fn medians(&self) -> Option<(f64, f64)> {
        Some((median(&self.stock)?, median(&self.lazy)?))
    }
}

fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= ENOUGH_RUNS)
}

/// A file of a server, with its validators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// The server's entity tag of this version, without the mark of a weak tag.
    pub etag: String,
    /// The server's `Last-Modified`; empty if it sent none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modified: String,
    /// The digest of its bytes.
    pub content: Digest,
}

/// Says whether a base image has files at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRecord {
    /// Whether there is a file that is not empty, at the path or below it.
    pub has_files: bool,
}

impl StepRecord {
    /// Returns the diff IDs of its layers.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// Returns the blobs of its layers.
    #[must_use]
    pub fn blobs(&self) -> Vec<Descriptor> {
        self.layers.iter().map(|layer| layer.blob.clone()).collect()
    }

    /// Returns the chain ID of its layers, or `None` without layers.
    #[must_use]
    pub fn chain(&self) -> Option<ChainId> {
        ChainId::of_layers(&self.diff_ids())
    }
}

/// Returns the key of a state's record.
#[must_use]
pub fn step_key(state: &StepKey) -> RecordKey<StepRecord> {
    RecordKey::new(state.as_digest())
}

/// Returns the key of the record of files copied out of a state.
#[must_use]
pub fn copied_content_key(content: &CopiedContentKey) -> RecordKey<CopiedContentRecord> {
    RecordKey::new(content.as_digest())
}

/// Returns the key of the record that says that the cache has states of this partial key.
#[must_use]
pub fn partial_key(state: &PartialKey) -> RecordKey<PartialKeyRecord> {
    RecordKey::new(state.as_digest())
}

/// Returns the key of the record that says that a daemon performs this operation like hakobi.
#[must_use]
pub fn proof_key(operation: &OperationKey) -> RecordKey<ProofRecord> {
    RecordKey::new(operation.as_digest())
}

/// Returns the key of a layer's record.
#[must_use]
pub fn layer_key(layer: &Layer) -> RecordKey<LayerRecord> {
    RecordKey::from_text(&format!("hakobi layer 1\n{}\n{}", layer.blob.digest, layer.diff_id))
}

/// Returns the key of the record of a server's file.
#[must_use]
pub fn remote_key(url: &str) -> RecordKey<RemoteRecord> {
    RecordKey::from_text(&format!("hakobi remote 1\n{url}"))
}

/// Returns the key of the record that says whether an image with these layers has files at a path.
#[must_use]
pub fn path_key(layers: &ChainId, path: &str) -> RecordKey<PathRecord> {
    RecordKey::from_text(&format!("hakobi path 1\n{layers}\n{path}"))
}

/// Returns the key of an image's record: of its state, the frontend's configuration and other inputs of its manifest.
#[must_use]
pub fn image_key(state: &StepKey, config: &[u8], options: &[String]) -> RecordKey<ImageRecord> {
    let mut hasher = Hasher::default();
    for part in [b"hakobi image 1", state.to_string().as_bytes(), config].into_iter().chain(options.iter().map(String::as_bytes))
    {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    RecordKey::new(hasher.digest())
}

/// A record as hakobi writes it.
#[derive(Serialize)]
struct Sealed<'a> {
    version: u32,
    seal: Digest,
    record: &'a RawValue,
}

/// A record as hakobi reads it, of any version.
#[derive(Deserialize)]
struct Read<'a> {
    version: u32,
    #[serde(default)]
    seal: Option<Digest>,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Returns the digest of a record under its key. It detects a record that was changed, cut, or moved to another key. It does not
/// prove who wrote the record.
fn seal<T>(key: &RecordKey<T>, record: &str) -> Digest {
    Digest::hash(format!("hakobi record {VERSION}\n{key}\n{record}").as_bytes())
}

/// Returns the bytes to store for a record.
///
/// # Errors
/// If it cannot be written as JSON.
pub(super) fn encode<T: Serialize>(key: &RecordKey<T>, record: &T) -> serde_json::Result<Vec<u8>> {
    let record = serde_json::value::to_raw_value(record)?;
    serde_json::to_vec(&Sealed { version: VERSION, seal: seal(key, record.get()), record: &record })
}

/// The result of decoding a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<T> {
    /// A valid record.
    Record(T),
    /// A record of another version.
    OtherVersion,
    /// No record, or an implausible one.
    Unusable,
}

/// Decodes the record of a key.
pub(super) fn decode<T: Record>(key: &RecordKey<T>, bytes: &[u8]) -> Decoded<T> {
    let Ok(read) = serde_json::from_slice::<Read<'_>>(bytes) else { return Decoded::Unusable };
    if read.version != VERSION {
        return Decoded::OtherVersion;
    }
    if read.seal != Some(seal(key, read.record.get())) {
        return Decoded::Unusable;
    }
    match serde_json::from_str::<T>(read.record.get()) {
        Ok(record) if record.is_sane() => Decoded::Record(record),
        _ => Decoded::Unusable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::media_type;

    #[test]
    fn builds_are_compared_when_there_are_enough_of_both_kinds() {
        let mut runs = RunsRecord::default();
        for (is_lazy, seconds) in [(false, 90.0), (false, 10.0), (true, 7.0), (true, 5.0), (false, 30.0), (true, 90.0)] {
            assert_eq!(runs.medians(), None);
            runs.add(is_lazy, seconds);
        }
        assert_eq!(runs.medians(), Some((30.0, 7.0)));
        for _ in 0..9 {
            runs.add(false, 5.0);
        }
        assert_eq!(runs.medians(), Some((5.0, 7.0)));
        assert!(runs.is_sane() && runs.stock.len() == MOST_RUNS);
        runs.lazy.push(f64::NAN);
        assert!(!runs.is_sane());
    }

    /// Other keys would make the caches of all users cold once.
    #[test]
    fn keys_are_what_they_were() {
        let state = StepKey::hash(b"state");
        assert_eq!(step_key(&state).to_string(), state.to_string());
        assert_eq!(copied_content_key(&CopiedContentKey::hash(b"state")).to_string(), state.to_string());
        assert_eq!(partial_key(&PartialKey::hash(b"state")).to_string(), state.to_string());
        assert_eq!(proof_key(&OperationKey::hash(b"state")).to_string(), state.to_string());
        let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::hash(b"blob"), 1);
        let layer = Layer { blob, diff_id: DiffId::hash(b"tar"), created: None };
        assert_eq!(layer_key(&layer).digest().hex(), "7132f8393e804bd933114d06770b809235093d6d96bd491863e1aecbc3fc2f83");
        assert_eq!(
            remote_key("https://example.com/a").digest().hex(),
            "8ddee6df3dcd6c01eb0fda6ef0cfef152d5f7113774d28a3e2c57ba6e1825759"
        );
        let image = image_key(&state, b"{}", &["Gzip(6)".to_owned(), "a=b".to_owned()]);
        assert_eq!(image.digest().hex(), "f039a56d6c84e308c3e966c1a4153a25e8109479d749a14f7d7997c185f6452a");
    }
}
