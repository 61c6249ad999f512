//! Reads the layers of an image again: their files and their path indexes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use futures::StreamExt as _;

use crate::build_context::Tree;
use crate::cache::fault::cache_fault;
use crate::cache::layer_index::{self, key, read_tree};
use crate::domain::{Descriptor, DiffId};
use crate::error::{Error, Kind, Result};
use crate::handover::PreparedImage;
use crate::layers::LayerIndex;
use crate::plan::RecordKey;
use crate::recorder::recording::{Evidence, Recorder};
use crate::transfer::ByteStream;
use crate::transfer::compress::plain;

/// Records the path indexes of an image's layers that have none yet. Returns all known indexes, by diff ID.
///
/// # Errors
/// If the cache fails.
pub async fn index(
    recorder: &Recorder<'_>,
    image: &PreparedImage,
    evidence: &Evidence<'_>,
) -> Result<HashMap<DiffId, LayerIndex>> {
    let faulty = cache_fault::<crate::store::Error>;
    let store = recorder.execution.cache.records();
    recorder.execution.cache.passed().await;
    let all = image.layers.iter().map(|layer| &layer.digest).zip(&image.diff_ids);
    let keys: HashMap<_, &DiffId> = all.map(|(blob, diff_id)| (key(blob, diff_id), diff_id)).collect();
    let known = store.read(keys.keys().cloned(), RecordKey::clone).await.map_err(faulty)?;
    let is_known = |blob: &Descriptor, diff_id: &DiffId| known.contains_key(&key(&blob.digest, diff_id));
    let absent = image.layers.iter().zip(&image.diff_ids).filter(|(blob, diff_id)| !is_known(blob, diff_id));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let new = futures::stream::iter(absent)
        .map(|(blob, diff_id)| async move {
            let index = layer_index::index(layer(recorder, blob, evidence).await?, None).await;
            Ok(index.map(|index| (key(&blob.digest, diff_id), diff_id.clone(), index)))
        })
        .buffer_unordered(threads);
    let new: Vec<Result<Option<_>>> = new.collect().await;
    let new: Vec<(RecordKey<LayerIndex>, DiffId, LayerIndex)> =
        new.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
    let hidden = recorder.execution.daemon.context.events.hidden();
    let open = new.iter().filter(|(_, _, index)| !index.holds(hidden));
    store.write(open.map(|(key, _, index)| (key.clone(), index))).await.map_err(faulty)?;
    let known = known.into_iter().filter_map(|(key, index)| Some(((*keys.get(&key)?).clone(), index)));
    Ok(new.into_iter().map(|(_, diff_id, index)| (diff_id, index)).chain(known).collect())
}

/// Returns the files of a layer, or `None` if the layer is not available.
///
/// # Errors
/// If the layer cannot be read.
pub async fn tree(recorder: &Recorder<'_>, blob: &Descriptor, evidence: &Evidence<'_>) -> Result<Option<Arc<Tree>>> {
    let known = || evidence.trees.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tree) = known().get(&blob.digest) {
        return Ok(Some(Arc::clone(tree)));
    }
    let unreadable = |error: std::io::Error| Error::new(Kind::Cache, "failed to read a new layer again").because(&error);
    let Some(plain) = layer(recorder, blob, evidence).await? else { return Ok(None) };
    let tree = Arc::new(read_tree(plain).await.map_err(unreadable)?);
    known().insert(blob.digest.clone(), Arc::clone(&tree));
    Ok(Some(tree))
}

/// Opens a layer, uncompressed, from an intake or from the cache. Returns `None` if neither has it.
///
/// # Errors
/// If the layer cannot be read.
pub async fn layer(recorder: &Recorder<'_>, blob: &Descriptor, evidence: &Evidence<'_>) -> Result<Option<ByteStream>> {
    let unreadable = |error: std::io::Error| Error::new(Kind::Cache, "failed to read a new layer again").because(&error);
    let mut bytes = None;
    for intake in evidence.intakes {
        if bytes.is_none() {
            bytes = intake.arrived(&blob.digest).await.map_err(unreadable)?;
        }
    }
    if bytes.is_none() {
        let cached = recorder.execution.cache.blobs().open(&blob.digest, Some(blob.size), 0).await;
        bytes = cached.map_err(cache_fault)?;
    }
    match bytes {
        Some(bytes) => Ok(Some(plain(bytes).await.map_err(unreadable)?)),
        None => Ok(None),
    }
}
