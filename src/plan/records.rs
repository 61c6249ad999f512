//! Reads records from the own scope and its fallbacks, and writes them to the own scope.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::record::{Decoded, LARGE, Record, decode, encode};
use super::record_key::RecordKey;
use crate::hidden::Hidden;
use crate::store::{Blobs, Error, Fault, Name, ObjectStore, Result, read_small, read_undamaged};
use crate::transfer::BytesSource;

/// How many records hakobi reads or writes at once.
const AT_ONCE: usize = 32;

/// Access to the records that a build may read and write.
#[derive(Debug, Clone)]
pub struct Records {
    blobs: Blobs,
    /// The scopes, the own one first.
    scopes: Vec<String>,
    /// Whether hakobi may write to the own scope.
    writes: bool,
    hidden: Hidden,
}

impl Records {
    /// Returns access to the records of these scopes, the own one first. hakobi does not write a record that contains a hidden
    /// value.
    #[must_use]
    pub fn new(blobs: Blobs, scopes: Vec<String>, writes: bool, hidden: Hidden) -> Self {
        Self { blobs, scopes, writes, hidden }
    }

    /// Reads the records of these items, each from the first scope that has it. `key` returns an item's key, and so the kind of
    /// record.
    ///
    /// # Errors
    /// If the store cannot be read. A missing record is a miss. An invalid record is a miss too, and is noted
    /// ([`Blobs::unusable`]).
    pub async fn read<K: Eq + Hash, T: Record>(
        &self,
        of: impl IntoIterator<Item = K>,
        key: impl Fn(&K) -> RecordKey<T>,
    ) -> Result<HashMap<K, T>> {
        let all: Vec<(K, RecordKey<T>)> = of.into_iter().map(|one| (key(&one), one)).map(|(key, one)| (one, key)).collect();
        let read = stream::iter(all).map(|(one, key)| async move { Ok((one, self.one(&key).await?)) });
        let read: Vec<(K, Option<T>)> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(read.into_iter().filter_map(|(one, record)| Some((one, record?))).collect())
    }

    /// Reads the record of a key from the first scope that has one. Returns `None` if none has.
    ///
    /// # Errors
    /// If the store cannot be read. An invalid record is a miss.
    pub async fn one<T: Record>(&self, key: &RecordKey<T>) -> Result<Option<T>> {
        Ok(self.first(key).await?.map(|(record, _)| record))
    }

    /// Reads the record of a key from the first scope that has one. Returns `None` if none has. The flag says whether the own scope
    /// has it, so that [`Records::replace`] can replace it.
    ///
    /// # Errors
    /// If the store cannot be read. An invalid record is a miss.
    pub async fn first<T: Record>(&self, key: &RecordKey<T>) -> Result<Option<(T, bool)>> {
        let mut mends = None;
        for scope in &self.scopes {
            let name = Name::record(scope, key.digest());
            let packed = match read_small(self.blobs.store(), &name, T::LIMIT).await {
                Err(error) if error.fault() == Fault::Damaged => None,
                Err(error) => return Err(error),
                Ok(None) => continue,
                Ok(packed) => packed,
            };
            let decoded = packed.as_ref().and_then(|packed| unpacked(packed, T::LIMIT));
            match decoded.map_or(Decoded::Unusable, |plain| decode(key, &plain)) {
                Decoded::Record(record) => {
                    self.blobs.note_used(&name);
                    for digest in T::blobs(&record) {
                        self.blobs.store().note_use(&Name::blob(&digest));
                    }
                    // Otherwise the own scope's record would stay invalid as long as another scope has a valid one.
                    let mended = match (mends, packed) {
                        (Some(mends), Some(packed)) => self.blobs.store().write(&mends, &BytesSource::new(packed)).await.is_ok(),
                        _ => false,
                    };
                    return Ok(Some((record, mended || self.scopes.first() == Some(scope))));
                }
                Decoded::OtherVersion => {}
                Decoded::Unusable => {
                    self.blobs.note_unusable(&name);
                    mends = mends.or_else(|| (self.writes && self.scopes.first() == Some(scope)).then_some(name));
                }
            }
        }
        // Nobody may write it again in this run or the next: it would be found damaged each time.
        if let Some(damaged) = mends {
            let _ = self.blobs.store().delete(&damaged).await;
        }
        Ok(None)
    }

    /// Reads a scope's record of a key, for who only looks: neither notes an invalid record nor mends it. Returns `None` if there is
    /// no valid record.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn look<T: Record>(store: &dyn ObjectStore, scope: &str, key: &RecordKey<T>) -> Result<Option<T>> {
        let packed = read_undamaged(store, &Name::record(scope, key.digest()), T::LIMIT).await?;
        Ok(packed.and_then(|packed| valid(key, &packed)))
    }

    /// Writes the own scope's record of a key, if it is still `before`; an invalid record counts as none. Returns whether it did: of two
    /// runs that have read one record, only one replaces it. The blobs that the record names must already be in the store.
    ///
    /// # Errors
    /// If the store cannot be read, or does not accept the record.
    pub async fn replace<T: Record + Serialize + PartialEq>(
        &self,
        key: &RecordKey<T>,
        before: Option<&T>,
        after: &T,
    ) -> Result<bool> {
        let Some(scope) = self.scopes.first() else { return Ok(false) };
        let name = Name::record(scope, key.digest());
        let there = read_undamaged(self.blobs.store(), &name, T::LIMIT).await?;
        let now = there.as_ref().and_then(|packed| valid(key, packed));
        if now.as_ref() != before {
            return Ok(false);
        }
        let Some(packed) = self.packed(key, after)? else { return Ok(false) };
        self.blobs.note_used(&name);
        self.blobs.store().replace(&name, there.as_ref(), packed).await
    }

    /// Returns the bytes of a record. Returns `None` for one that hakobi would not read, or that contains a hidden value.
    fn packed<T: Serialize>(&self, key: &RecordKey<T>, record: &T) -> Result<Option<Bytes>> {
        let broken = |error: &dyn std::fmt::Display| Error::new(Fault::Other, format!("failed to write a record: {error}"));
        let plain = encode(key, record).map_err(|error| broken(&error))?;
        if plain.len() as u64 > LARGE || self.hidden.is_in(&plain) {
            return Ok(None);
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        let packed = packed.write_all(&plain).and_then(|()| packed.finish()).map_err(|error| broken(&error))?;
        Ok(Some(packed.into()))
    }

    /// Notes that this run has looked at all steps of the image.
    pub fn note_whole(&self) {
        self.blobs.note_whole();
    }

    /// Notes that hakobi does not use a record, because it does not fit the plan.
    pub fn refuse<T>(&self, key: &RecordKey<T>) {
        if let Some(scope) = self.scopes.first() {
            self.blobs.note_unusable(&Name::record(scope, key.digest()));
        }
    }

    /// Writes records to the own scope. The blobs that they name must already be in the store.
    ///
    /// # Errors
    /// If the store does not accept a record.
    pub async fn write<T: Serialize, R: Borrow<T>>(&self, records: impl IntoIterator<Item = (RecordKey<T>, R)>) -> Result<()> {
        let Some(scope) = self.scopes.first() else { return Ok(()) };
        let mut objects = Vec::new();
        for (key, record) in records {
            let Some(packed) = self.packed(&key, record.borrow())? else { continue };
            let name = Name::record(scope, key.digest());
            self.blobs.note_used(&name);
            objects.push((name, packed));
        }
        let store = self.blobs.store();
        stream::iter(objects)
            .map(|(name, bytes)| async move { store.write(&name, &BytesSource::new(bytes)).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}

/// Returns the record of a key in these bytes. Returns `None` if it is not valid.
fn valid<T: Record>(key: &RecordKey<T>, packed: &[u8]) -> Option<T> {
    match decode(key, &unpacked(packed, T::LIMIT)?) {
        Decoded::Record(record) => Some(record),
        Decoded::OtherVersion | Decoded::Unusable => None,
    }
}

/// Decompresses these bytes. Returns `None` if they are damaged, or larger than the limit.
fn unpacked(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(packed).take(limit + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= limit).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{Descriptor, DiffId, Digest, media_type};
    use crate::plan::{Layer, StepRecord};
    use crate::store::MemoryStore;

    fn layer(text: &str) -> Layer {
        let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::hash(text.as_bytes()), 100);
        Layer { blob, diff_id: DiffId::hash(format!("{text}, unpacked").as_bytes()), created: None }
    }

    fn record() -> StepRecord {
        StepRecord { layers: ["base", "one", "two"].map(layer).to_vec(), ran: Some(1) }
    }

    fn packed(plain: &[u8]) -> bytes::Bytes {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(plain).expect("packed");
        packed.finish().expect("packed").into()
    }

    /// A store with the record of a key, in the scopes `own` and `main`.
    async fn kept(key: &RecordKey<StepRecord>) -> (Arc<MemoryStore>, impl Fn() -> Records) {
        let store = Arc::new(MemoryStore::default());
        for scope in ["own", "main"] {
            let records = Records::new(Blobs::new(store.clone()), vec![scope.to_owned()], true, Hidden::default());
            records.write([(key.clone(), record())]).await.expect("written");
        }
        let opened = store.clone();
        let records = move || Records::new(Blobs::new(opened.clone()), vec!["own".to_owned()], true, Hidden::default());
        (store, records)
    }

    async fn plain(store: &MemoryStore, key: &RecordKey<StepRecord>) -> Value {
        let packed = read_small(store, &Name::record("own", key.digest()), 1 << 20).await.expect("read").expect("there");
        serde_json::from_slice(&unpacked(&packed, 1 << 20).expect("unpacked")).expect("JSON")
    }

    #[tokio::test]
    async fn a_record_that_was_changed_is_a_miss_that_is_noted() {
        let key = RecordKey::<StepRecord>::new(Digest::hash(b"key"));
        let (store, records) = kept(&key).await;
        assert_eq!(records().one(&key).await.expect("read"), Some(record()));
        let whole = plain(&store, &key).await;
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut value = whole.clone();
            change(&mut value);
            packed(value.to_string().as_bytes())
        };
        let many: Vec<Value> = vec![whole["record"]["layers"][0].clone(); 200_000];
        let mut deep = "[".repeat(10_000);
        deep.push_str(&"]".repeat(10_000));
        let lies = [
            changed(&|value| value["record"]["layers"][0]["blob"]["size"] = json!(u64::MAX)),
            changed(&|value| value["record"]["layers"][1]["blob"]["size"] = json!(101)),
            changed(&|value| {
                let diff_id = value["record"]["layers"][1]["diff_id"].take();
                value["record"]["layers"][1]["diff_id"] = value["record"]["layers"][2]["diff_id"].take();
                value["record"]["layers"][2]["diff_id"] = diff_id;
            }),
            changed(&|value| value["record"]["layers"][2] = value["record"]["layers"][1].clone()),
            changed(&|value| drop(value["record"]["layers"].as_array_mut().map(Vec::pop))),
            changed(&|value| value["record"]["layers"] = json!([])),
            changed(&|value| value["record"]["layers"] = json!(many)),
            changed(&|value| drop(value.as_object_mut().map(|value| value.remove("seal")))),
            changed(&|value| value["record"] = json!({})),
            packed(deep.as_bytes()),
            packed(&vec![b' '; 100 << 20]),
            packed(b""),
            bytes::Bytes::new(),
            vec![0; 5 << 20].into(),
        ];
        for (number, lie) in lies.into_iter().enumerate() {
            store.set(&Name::record("own", key.digest()), lie);
            let records = records();
            assert!(records.one(&key).await.expect("read").is_none(), "{number}");
            assert_eq!(records.blobs.unusable().len(), 1, "{number}");
            // hakobi overwrites it with a valid record.
            records.write([(key.clone(), record())]).await.expect("written");
            assert_eq!(records.one(&key).await.expect("read").iter().len(), 1, "{number}");
        }
        // A record of another version of hakobi is not damaged.
        store.set(&Name::record("own", key.digest()), changed(&|value| value["version"] = json!(99)));
        let other = records();
        assert!(other.one(&key).await.expect("read").is_none());
        assert!(other.blobs.unusable().is_empty());
        // A valid record of one key is invalid under another.
        let moved = RecordKey::<StepRecord>::new(Digest::hash(b"another"));
        store.set(&Name::record("own", moved.digest()), packed(whole.to_string().as_bytes()));
        assert!(records().one(&moved).await.expect("read").is_none());
    }

    #[tokio::test]
    async fn another_scopes_record_mends_the_own_one() {
        let key = RecordKey::<StepRecord>::new(Digest::hash(b"key"));
        let (store, _) = kept(&key).await;
        let name = Name::record("own", key.digest());
        let scopes = vec!["own".to_owned(), "main".to_owned()];
        for (writes, left) in [(false, Some(3)), (true, None)] {
            store.set(&name, "???".into());
            let records = Records::new(Blobs::new(store.clone()), scopes.clone(), writes, Hidden::default());
            assert_eq!(records.one(&key).await.expect("read").iter().len(), 1);
            assert_eq!(records.blobs.unusable().len(), 1);
            assert_eq!(store.size(&name).await.expect("an answer").filter(|size| *size == 3), left);
        }
    }

    #[tokio::test]
    async fn a_damaged_record_that_no_scope_has_right_goes() {
        let key = RecordKey::<StepRecord>::new(Digest::hash(b"key"));
        let (store, _) = kept(&key).await;
        let name = Name::record("own", key.digest());
        for (writes, left) in [(false, Some(3)), (true, None)] {
            store.set(&name, "???".into());
            let records = Records::new(Blobs::new(store.clone()), vec!["own".to_owned()], writes, Hidden::default());
            assert!(records.one(&key).await.expect("read").is_none());
            assert_eq!(records.blobs.unusable().len(), 1);
            assert_eq!(store.size(&name).await.expect("an answer"), left);
        }
    }

    #[test]
    fn one_blob_is_one_layer() {
        let mut record = record();
        assert!(record.is_sane());
        record.layers.push(layer("one"));
        assert!(record.is_sane(), "two steps may make the same layer");
        record.layers[1].diff_id = DiffId::hash(b"other");
        assert!(!record.is_sane());
    }
}
