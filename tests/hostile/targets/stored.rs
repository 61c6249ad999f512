//! Objects of a store that anybody may have written: records of all kinds, and blobs.

use std::fmt::Debug;
use std::sync::Arc;

use hakobi::domain::Digest;
use hakobi::graph::Graph;
use hakobi::hidden::Hidden;
use hakobi::plan::{
    ColdRecord, CompiledRecord, CopiedContentRecord, DaemonRecord, ImageRecord, Inputs, LayerRecord, PartialKeyRecord,
    PathRecord, ProofRecord, Record, RecordKey, Records, RemoteRecord, StepRecord,
};
use hakobi::store::{Blobs, MemoryStore, Name};
use serde::Serialize;
use serde_json::value::RawValue;

/// The key under which all records are.
const KEY: &[u8] = b"key";

/// Reads the input as the JSON of a record of each kind, with a valid seal.
pub fn record(input: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Box<RawValue>>(input) else { return };
    super::run(async {
        if let Some(record) = sealed::<StepRecord>(&json).await {
            assert_eq!((record.diff_ids().len(), record.blobs().len()), (record.layers.len(), record.layers.len()));
            assert_eq!(record.chain().is_none(), record.layers.is_empty());
        }
        sealed::<CopiedContentRecord>(&json).await;
        sealed::<PartialKeyRecord>(&json).await;
        sealed::<DaemonRecord>(&json).await;
        sealed::<ProofRecord>(&json).await;
        sealed::<LayerRecord>(&json).await;
        sealed::<ImageRecord>(&json).await;
        sealed::<ColdRecord>(&json).await;
        sealed::<RemoteRecord>(&json).await;
        sealed::<PathRecord>(&json).await;
        sealed::<Inputs>(&json).await;
        if let Some(record) = sealed::<CompiledRecord>(&json).await
            && let Some(bytes) = record.definition()
            && let Ok(definition) = Graph::decoded(&bytes)
        {
            let _ = Graph::new(definition);
        }
    });
}

/// Reads a record. What is read must be plausible, and equal after it is written and read again.
async fn sealed<T: Record + Serialize + Debug + PartialEq>(json: &RawValue) -> Option<T> {
    let records = Records::new(Blobs::new(Arc::new(MemoryStore::default())), vec!["own".to_owned()], true, Hidden::default());
    records.write([(RecordKey::<Box<RawValue>>::new(Digest::hash(KEY)), json.to_owned())]).await.unwrap();
    let key = RecordKey::<T>::new(Digest::hash(KEY));
    let record = records.one(&key).await.unwrap()?;
    assert!(record.is_sane());
    records.write::<T, &T>([(key.clone(), &record)]).await.unwrap();
    let again = records.one(&key).await.unwrap();
    let is_kept = again.as_ref() == Some(&record) || super::has_fractions(json.get().as_bytes());
    assert!(is_kept, "{record:?} changes when it is written");
    Some(record)
}

/// Reads the input as a packed record and as a blob.
pub fn object(input: &[u8]) {
    let store = Arc::new(MemoryStore::default());
    let blobs = Blobs::new(store.clone());
    super::run(async {
        let key = RecordKey::<StepRecord>::new(Digest::hash(KEY));
        store.set(&Name::record("own", key.digest()), input.to_vec().into());
        let records = Records::new(blobs.clone(), vec!["own".to_owned()], false, Hidden::default());
        let found = records.one(&key).await.unwrap();
        assert!(found.is_none_or(|record| record.is_sane()));
        // A blob of another digest is a miss. Its checksums say nothing else, whatever they are.
        let (own, other) = (Digest::hash(input), Digest::hash(b"other"));
        for (digest, fits) in [(&own, true), (&other, input == b"other")] {
            store.set(&Name::blob(digest), input.to_vec().into());
            let read = blobs.read(digest, 1 << 20).await;
            assert_eq!(read.ok().flatten().is_some_and(|bytes| bytes == input), fits, "{digest}");
            store.set(&Name::sums(digest), input.to_vec().into());
            for offset in [0, 1] {
                if let Ok(Some(stream)) = Blobs::new(store.clone()).open(digest, Some(input.len() as u64), offset).await {
                    let bytes = super::read(stream).await;
                    assert!(offset > 0 || bytes.is_err() || fits, "wrong bytes of {digest}");
                }
            }
        }
    });
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(name) = text.parse::<Name>()
    {
        assert!(!name.as_str().split('/').any(|part| part.starts_with('.') || part.is_empty()), "{name}");
        let _ = (name.used_by(), name.used_on(), name.pointed(), name.pointer_of(), name.scope_part(), Name::decoded(text));
    }
}
