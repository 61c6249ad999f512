//! The small objects of one scope and image, as one blob: what a run reads in one request, and how two runs' changes are merged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};

use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::store::Name;

/// The version of the layout in a registry.
pub const VERSION: u32 = 1;

/// Largest bundle in bytes, uncompressed. Old objects are dropped before it grows larger.
const LARGEST: usize = 16 << 20;

/// How many saves an object stays that no run used. One save is one build that changed something.
const UNUSED_SAVES: u64 = 30;

/// Most blobs of an artifact. Its manifest then has some 600 KiB; registries accept 4 MiB (distribution, "maximum manifest size").
const MOST_BLOBS: usize = 4000;

/// How many saves a bundle names, so that a run finds out whether its own is in there.
const NAMED_SAVES: usize = 64;

/// A small object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallObject {
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, in seconds of the Unix epoch.
    pub written: u64,
    /// The save that used it last.
    used: u64,
    #[serde(flatten)]
    pub content: Content,
}

/// Where the bytes of an object are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Here, as base64.
    Data(#[serde(with = "as_base64")] Bytes),
    /// In a blob of its own, because there are many.
    Blob(Digest),
}

/// A blob of the registry that the artifact keeps alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlob {
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, in seconds of the Unix epoch.
    pub written: u64,
    /// The save that used it last.
    used: u64,
}

/// The objects of one scope and image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    pub version: u32,
    /// The place in the repository, the scope and the image: what the tag is made of.
    pub prefix: String,
    pub scope: String,
    pub image: String,
    /// The number of saves so far.
    saves: u64,
    /// The names of the last saves.
    save_ids: Vec<String>,
    #[serde(with = "named")]
    pub objects: BTreeMap<Name, SmallObject>,
    pub blobs: BTreeMap<Digest, KnownBlob>,
    /// Blobs that turned out to be damaged. A registry keeps the bytes that it has, so they count as missing.
    #[serde(default)]
    pub damaged: BTreeSet<Digest>,
}

/// What a run changes in a bundle.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The scope of the bundle.
    pub scope: String,
    /// Written objects; `None` for those that were removed.
    pub objects: BTreeMap<Name, Option<NewObject>>,
    /// Written blobs, with their sizes in bytes; `None` for those that were removed.
    pub blobs: BTreeMap<Digest, Option<u64>>,
    /// Blobs that the registry had before, with their sizes in bytes. They are no reason to save.
    pub seen: BTreeMap<Digest, u64>,
    /// Objects and blobs that the run used.
    pub used: BTreeSet<Name>,
}

/// An object that a run writes.
#[derive(Debug, Clone)]
pub struct NewObject {
    /// Its size in bytes.
    pub size: u64,
    pub content: Content,
}

impl Changes {
    /// Returns no changes of this scope's bundle.
    pub fn new(scope: &str) -> Self {
        Self { scope: scope.to_owned(), ..Self::default() }
    }

    /// Returns whether there is anything to save. Use alone is no reason to save.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.blobs.is_empty()
    }

    /// Returns whether they only remove.
    pub fn only_removes(&self) -> bool {
        self.objects.values().all(Option::is_none) && self.blobs.values().all(Option::is_none)
    }

    /// Returns whether they write an object or blob of this name.
    pub fn writes(&self, name: &Name) -> bool {
        let is_blob = name.digest().is_some_and(|digest| matches!(self.blobs.get(&digest), Some(Some(_))));
        is_blob || matches!(self.objects.get(name), Some(Some(_)))
    }

    /// Puts changes back that could not be saved, behind those that were made since.
    pub fn put_back(&mut self, earlier: Self) {
        for (name, object) in earlier.objects {
            self.objects.entry(name).or_insert(object);
        }
        for (digest, size) in earlier.blobs {
            self.blobs.entry(digest).or_insert(size);
        }
        self.seen.extend(earlier.seen);
        self.used.extend(earlier.used);
    }
}

impl Bundle {
    /// Returns an empty bundle.
    pub fn new(prefix: &str, scope: &str, image: &str) -> Self {
        let [prefix, scope, image] = [prefix, scope, image].map(str::to_owned);
        let (objects, blobs, damaged) = Default::default();
        Self { version: VERSION, prefix, scope, image, saves: 0, save_ids: Vec::new(), objects, blobs, damaged }
    }

    /// Returns the tag of its artifact. The readable part is for people; the digest tells scopes and images apart.
    pub fn tag(prefix: &str, scope: &str, image: &str) -> String {
        let readable: String =
            scope.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).take(40).collect();
        let digest = Digest::hash(format!("{prefix}\n{scope}\n{image}").as_bytes()).hex();
        format!("{TAGS}{readable}-{}", &digest[..16])
    }

    /// Returns whether this is the tag of its artifact.
    pub fn is_saved_as(&self, tag: &str) -> bool {
        Self::tag(&self.prefix, &self.scope, &self.image) == tag
    }

    /// Returns whether it contains a save.
    pub fn has_save(&self, id: &str) -> bool {
        self.save_ids.iter().any(|known| known == id)
    }

    /// Applies the changes of a save, and drops what no run has used for long.
    pub fn apply(&mut self, changes: &Changes, id: &str, now: u64) {
        self.saves += 1;
        self.save_ids.push(id.to_owned());
        let surplus = self.save_ids.len().saturating_sub(NAMED_SAVES);
        self.save_ids.drain(..surplus);
        let used = self.saves;
        for (name, object) in &changes.objects {
            match object {
                Some(NewObject { size, content }) => {
                    let object = SmallObject { size: *size, written: now, used, content: content.clone() };
                    self.objects.insert(name.clone(), object);
                }
                None => drop(self.objects.remove(name)),
            }
        }
        // Another run may have found out meanwhile that a blob is damaged.
        let seen = changes.seen.iter().filter(|(digest, _)| !self.damaged.contains(digest));
        let seen: Vec<(&Digest, Option<u64>)> = seen.map(|(digest, size)| (digest, Some(*size))).collect();
        for (digest, size) in seen.into_iter().chain(changes.blobs.iter().map(|(digest, size)| (digest, *size))) {
            match size {
                Some(size) => {
                    let written = self.blobs.get(digest).map_or(now, |known| known.written);
                    self.blobs.insert(digest.clone(), KnownBlob { size, written, used });
                    self.damaged.remove(digest);
                }
                None => {
                    self.blobs.remove(digest);
                    self.damaged.insert(digest.clone());
                }
            }
        }
        for name in &changes.used {
            if let Some(object) = self.objects.get_mut(name) {
                object.used = used;
            }
            if let Some(blob) = name.digest().and_then(|digest| self.blobs.get_mut(&digest)) {
                blob.used = used;
            }
        }
        self.evict();
    }

    /// Returns the blobs that the artifact has to name, with their sizes in bytes.
    pub fn named_blobs(&self) -> impl Iterator<Item = (&Digest, u64)> {
        let own = self.objects.values().filter_map(|object| Some((object.blob()?, object.size)));
        self.blobs.iter().map(|(digest, blob)| (digest, blob.size)).chain(own)
    }

    /// Forgets the blobs that the registry does not have any more, and the objects in them.
    pub fn forget_lost(&mut self, there: &HashMap<Digest, u64>) {
        self.blobs.retain(|digest, _| there.contains_key(digest));
        self.objects.retain(|_, object| object.blob().is_none_or(|digest| there.contains_key(digest)));
    }

    fn evict(&mut self) {
        let oldest = self.saves.saturating_sub(UNUSED_SAVES);
        self.objects.retain(|_, object| object.used >= oldest);
        while self.objects.len() > 1 && self.objects.values().map(SmallObject::length).sum::<usize>() > LARGEST {
            let Some(last) = self.objects.values().map(|object| object.used).min() else { break };
            let newest = self.objects.values().map(|object| object.used).max();
            if newest > Some(last) {
                self.objects.retain(|_, object| object.used > last);
            } else if let Some(largest) =
                self.objects.iter().max_by_key(|(_, object)| object.length()).map(|(name, _)| name.clone())
            {
                // One save wrote more than a bundle holds.
                self.objects.remove(&largest);
            }
        }
        let in_use: BTreeSet<Digest> = self.objects.values().filter_map(SmallObject::blob).cloned().collect();
        self.blobs.retain(|digest, blob| blob.used >= oldest || in_use.contains(digest));
        if self.blobs.len() > MOST_BLOBS {
            let mut uses: Vec<u64> = self.blobs.values().map(|blob| blob.used).collect();
            uses.sort_unstable_by(|a, b| b.cmp(a));
            let least = uses.get(MOST_BLOBS).copied().unwrap_or_default();
            self.blobs.retain(|digest, blob| blob.used > least || in_use.contains(digest));
        }
    }

    /// Returns the bytes of the bundle's blob.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn encode(&self) -> std::io::Result<Bytes> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut packed, self)?;
        packed.flush()?;
        Ok(packed.finish()?.into())
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// If it is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let mut plain = Vec::new();
        // Base64 adds a third.
        let limit = 2 * LARGEST as u64;
        GzDecoder::new(bytes).take(limit).read_to_end(&mut plain).map_err(|_| Unreadable::Damaged)?;
        let Version { version } = serde_json::from_slice(&plain).map_err(|_| Unreadable::Damaged)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        serde_json::from_slice(&plain).map_err(|_| Unreadable::Damaged)
    }
}

/// The start of the tags of all artifacts.
pub const TAGS: &str = "hakobi-cache-";

/// Why a bundle cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Damaged,
    /// Another version of hakobi wrote it.
    Version(u32),
}

impl SmallObject {
    /// Returns about how many bytes it adds to the bundle.
    fn length(&self) -> usize {
        match &self.content {
            Content::Data(bytes) => bytes.len() + 200,
            Content::Blob(_) => 300,
        }
    }

    /// Returns the blob with its bytes, or `None` if they are in the bundle.
    pub fn blob(&self) -> Option<&Digest> {
        match &self.content {
            Content::Data(_) => None,
            Content::Blob(digest) => Some(digest),
        }
    }
}

mod as_base64 {
    use super::{BASE64, Bytes};
    use base64::Engine as _;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

mod named {
    use std::collections::BTreeMap;

    use super::{Name, SmallObject};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(objects: &BTreeMap<Name, SmallObject>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(objects.iter().map(|(name, object)| (name.as_str(), object)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Name, SmallObject>, D::Error> {
        let objects = BTreeMap::<String, SmallObject>::deserialize(deserializer)?;
        let named = objects.into_iter().map(|(name, object)| Ok((name.parse().map_err(D::Error::custom)?, object)));
        named.collect()
    }
}
