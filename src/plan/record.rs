//! What is remembered of a step, of what was taken out of it, and of an image made of it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::record_key::RecordKey;
use crate::domain::{ChainId, CopiedContentKey, Descriptor, DiffId, Digest, Hasher, OperationKey, PartialKey, StepKey};

/// The version of the records that this program reads and writes. One of another version is a miss.
const VERSION: u32 = 2;

/// Most layers of a state. Docker takes 127.
const MOST_LAYERS: usize = 1000;

/// Largest layer, in bytes.
const LARGEST_LAYER: u64 = 1 << 40;

/// Largest record of a few fields, in bytes, as it is kept and as it is meant.
const SMALL: u64 = 4 << 20;

/// Largest record of many files or of a whole graph, in bytes, as it is kept and as it is meant. None that is larger is written.
pub const LARGE: u64 = 32 << 20;

/// What can be read from a store. Nobody knows who wrote what is there: it is read within limits, and has to make sense.
pub trait Record: DeserializeOwned + Send {
    /// Largest that is read, in bytes, as it is kept and as it is meant.
    const LIMIT: u64 = SMALL;

    /// Whether it makes sense by itself.
    fn is_sane(&self) -> bool {
        true
    }
}

impl Record for StepRecord {
    fn is_sane(&self) -> bool {
        let mut known = HashMap::new();
        // One blob is one tar.
        let mut agrees = |layer: &Layer| {
            let (diff_id, size) = known.entry(layer.blob.digest.clone()).or_insert((layer.diff_id.clone(), layer.blob.size));
            *diff_id == layer.diff_id && *size == layer.blob.size
        };
        self.layers.len() <= MOST_LAYERS
            && self.layers.iter().all(|layer| (1..=LARGEST_LAYER).contains(&layer.blob.size) && agrees(layer))
    }
}

impl Record for CopiedContentRecord {}
impl Record for PartialKeyRecord {}
impl Record for DaemonRecord {}
impl Record for ProofRecord {}
impl Record for LayerRecord {}
impl Record for ImageRecord {}
impl Record for RemoteRecord {}

impl Record for ColdRecord {
    fn is_sane(&self) -> bool {
        // A year.
        (0.0..=31_536_000.0).contains(&self.seconds)
    }
}

/// A layer of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob, as it was pushed.
    pub blob: Descriptor,
    /// What it is uncompressed.
    pub diff_id: DiffId,
    /// When it was made, as the image that it came with has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// The state after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// All its layers, from the base up.
    pub layers: Vec<Layer>,
    /// When the step ran, in seconds of the Unix epoch; nothing where the daemon had its result already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<u64>,
}

/// The content of what a step took out of another's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedContentRecord {
    /// Of what comes of copying it.
    pub content: Digest,
    /// Of the state that it was taken out of: another run of the same step may have made other files. Nothing where that was
    /// not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
}

/// That a state is kept which has this in common with others: their operations and all that they rest on, but not what was taken
/// out of stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialKeyRecord {}

/// The states of an image's graph that a daemon made itself, as the whole graph has them: its own cache gives them faster than any store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// Of a step that is in that cache too, and tells whether it is still the same one.
    pub mark: String,
    /// By their keys.
    pub states: Vec<StepKey>,
}

/// That the daemon made of a step the layer that hakobi had worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRecord {}

/// That a blob is what a diff ID says, as an image had it that a daemon or hakobi made. A step's record whose layers nobody saw so is
/// not used: an overlay2 daemon takes a diff ID on trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {}

/// An image that was made of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest, which is a blob of the store, as its configuration is.
    pub manifest: Descriptor,
}

/// A build of an image in which everything ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColdRecord {
    /// How long it took, in seconds.
    pub seconds: f64,
    /// When it ended, in seconds of the Unix epoch.
    pub ended: u64,
}

/// A file that a server had, and what to ask it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// What the server called this version of it, without the mark of a weak one.
    pub etag: String,
    /// `Last-Modified`, as the server said it; empty where it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modified: String,
    /// Of its bytes.
    pub content: Digest,
}

impl StepRecord {
    /// What its layers are uncompressed.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// Its layers as they were pushed.
    #[must_use]
    pub fn blobs(&self) -> Vec<Descriptor> {
        self.layers.iter().map(|layer| layer.blob.clone()).collect()
    }

    /// The digest of the chain.
    #[must_use]
    pub fn chain(&self) -> Option<ChainId> {
        ChainId::of_layers(&self.diff_ids())
    }
}

/// The key of the record of a state.
#[must_use]
pub fn step_key(state: &StepKey) -> RecordKey<StepRecord> {
    RecordKey::new(state.as_digest())
}

/// The key of the record of what is copied out of a state.
#[must_use]
pub fn copied_content_key(content: &CopiedContentKey) -> RecordKey<CopiedContentRecord> {
    RecordKey::new(content.as_digest())
}

/// The key of the record that says that states of this partial key are kept.
#[must_use]
pub fn partial_key(state: &PartialKey) -> RecordKey<PartialKeyRecord> {
    RecordKey::new(state.as_digest())
}

/// The key of the record that says that a daemon did this as hakobi does it.
#[must_use]
pub fn proof_key(operation: &OperationKey) -> RecordKey<ProofRecord> {
    RecordKey::new(operation.as_digest())
}

/// The key of the record of a layer.
#[must_use]
pub fn layer_key(layer: &Layer) -> RecordKey<LayerRecord> {
    RecordKey::from_text(&format!("hakobi layer 1\n{}\n{}", layer.blob.digest, layer.diff_id))
}

/// The key of the record of a file that a server has.
#[must_use]
pub fn remote_key(url: &str) -> RecordKey<RemoteRecord> {
    RecordKey::from_text(&format!("hakobi remote 1\n{url}"))
}

/// The key of the record of an image: of its state, the frontend's configuration and what else goes into its manifest.
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

/// A record as it is written.
#[derive(Serialize)]
struct Sealed<'a> {
    version: u32,
    seal: Digest,
    record: &'a RawValue,
}

/// A record as it is read, whatever version it is of.
#[derive(Deserialize)]
struct Read<'a> {
    version: u32,
    #[serde(default)]
    seal: Option<Digest>,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// The digest of a record under its key: one that was changed, cut, or moved to another key is none. It proves nothing of who wrote
/// it.
fn seal<T>(key: &RecordKey<T>, record: &str) -> Digest {
    Digest::hash(format!("hakobi record {VERSION}\n{key}\n{record}").as_bytes())
}

/// The record as it is kept under a key.
pub(super) fn encode<T: Serialize>(key: &RecordKey<T>, record: &T) -> serde_json::Result<Vec<u8>> {
    let record = serde_json::value::to_raw_value(record)?;
    serde_json::to_vec(&Sealed { version: VERSION, seal: seal(key, record.get()), record: &record })
}

/// What bytes turned out to be that should be a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<T> {
    /// One.
    Record(T),
    /// One of another version.
    OtherVersion,
    /// None, or none that makes sense.
    Unusable,
}

/// Reads the record of a key.
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

    /// Other keys would be another cache: that of all users would be cold once.
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
