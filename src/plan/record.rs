//! What is remembered of a step, of what was taken out of it, and of an image made of it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::domain::{ChainId, Descriptor, DiffId, Digest, Hasher, StepKey};

/// The version of the records that this program reads and writes. It is in every key too, so that another one is a miss.
const VERSION: u32 = 1;

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
pub struct TakenRecord {
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
pub struct HopeRecord {}

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

/// What a file is remembered by.
#[must_use]
pub fn remote_key(url: &str) -> StepKey {
    StepKey::of(format!("hakobi remote 1\n{url}").as_bytes())
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

/// What an image is remembered by: its state, the frontend's configuration and what else goes into its manifest.
#[must_use]
pub fn image_key(state: &StepKey, config: &[u8], options: &[String]) -> StepKey {
    let mut hasher = Hasher::default();
    for part in [b"hakobi image 1", state.to_string().as_bytes(), config].into_iter().chain(options.iter().map(String::as_bytes))
    {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.step_key()
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    record: T,
}

/// The record as it is kept.
pub(super) fn encode<T: Serialize>(record: T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Versioned { version: VERSION, record })
}

/// A record; nothing where another version wrote it, or it cannot be read.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice::<Versioned<T>>(bytes).ok().filter(|read| read.version == VERSION).map(|read| read.record)
}
