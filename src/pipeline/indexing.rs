//! The path indexes of an image's layers, which later runs lay files on without having the layers.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, PoisonError};

use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio_util::io::SyncIoBridge;

use super::recording::{Proved, Recording};
use crate::append::LayerIndex;
use crate::context::Tree;
use crate::domain::{Descriptor, DiffId, Digest, Hasher, StepKey};
use crate::endpoint::Shelf;
use crate::error::{Error, Kind, Result};
use crate::handover::Composed;
use crate::plan::{LARGE, Record, Records};
use crate::transfer::ByteStream;
use crate::transfer::compress::plain;

impl Record for LayerIndex {
    const LIMIT: u64 = LARGE;
}

/// What a layer's index is remembered by.
/// One that was read is of both: of a blob that is said to be something else, there is none.
pub(super) fn key(blob: &Digest, diff_id: &DiffId) -> StepKey {
    StepKey::of(format!("hakobi layer index 2\n{blob}\n{diff_id}").as_bytes())
}

impl Recording<'_> {
    /// Remembers which paths are in an image's layers, as far as that is not known; gives all that is known of them, by diff ID.
    pub(super) async fn index(&self, image: &Composed, proved: &Proved<'_>) -> Result<HashMap<DiffId, LayerIndex>> {
        let faulty = super::cache_fault::<crate::store::Error>;
        let store = self.kept.records();
        self.kept.passed().await;
        let all = image.layers.iter().map(|layer| &layer.digest).zip(&image.diff_ids);
        let keys: HashMap<StepKey, &DiffId> = all.map(|(blob, diff_id)| (key(blob, diff_id), diff_id)).collect();
        let known = store.read::<LayerIndex>(&keys.keys().cloned().collect::<Vec<_>>()).await.map_err(faulty)?;
        let is_known = |blob: &Descriptor, diff_id: &DiffId| known.contains_key(&key(&blob.digest, diff_id));
        let absent = image.layers.iter().zip(&image.diff_ids).filter(|(blob, diff_id)| !is_known(blob, diff_id));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let new = futures::stream::iter(absent)
            .map(|(blob, diff_id)| async move {
                let index = index(self.layer(blob, proved).await?, None).await;
                Ok(index.map(|index| (key(&blob.digest, diff_id), diff_id.clone(), index)))
            })
            .buffer_unordered(threads);
        let new: Vec<Result<Option<(StepKey, DiffId, LayerIndex)>>> = new.collect().await;
        let new: Vec<(StepKey, DiffId, LayerIndex)> = new.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        let hidden = self.run.job.events.hidden();
        let open = new.iter().filter(|(_, _, index)| !index.holds(hidden));
        store.write(open.map(|(key, _, index)| (key.clone(), index))).await.map_err(faulty)?;
        let known = known.into_iter().filter_map(|(key, index)| Some(((*keys.get(&key)?).clone(), index)));
        Ok(new.into_iter().map(|(_, diff_id, index)| (diff_id, index)).chain(known).collect())
    }

    /// The files of a layer; nothing where it cannot be had.
    pub(super) async fn tree(&self, blob: &Descriptor, proved: &Proved<'_>) -> Result<Option<Arc<Tree>>> {
        let known = || proved.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = known().get(&blob.digest) {
            return Ok(Some(Arc::clone(tree)));
        }
        let unreadable = |error: std::io::Error| Error::new(Kind::Cache, "a new layer cannot be read again").because(&error);
        let Some(plain) = self.layer(blob, proved).await? else { return Ok(None) };
        let tree = Arc::new(read_tree(plain).await.map_err(unreadable)?);
        known().insert(blob.digest.clone(), Arc::clone(&tree));
        Ok(Some(tree))
    }

    /// The bytes of a layer, uncompressed: as they arrived, or as they are kept. Nothing where they are in neither place.
    pub(super) async fn layer(&self, blob: &Descriptor, proved: &Proved<'_>) -> Result<Option<ByteStream>> {
        let unreadable = |error: std::io::Error| Error::new(Kind::Cache, "a new layer cannot be read again").because(&error);
        let mut bytes = None;
        for intake in proved.intakes {
            if bytes.is_none() {
                bytes = intake.arrived(&blob.digest).await.map_err(unreadable)?;
            }
        }
        if bytes.is_none() {
            let kept = self.kept.blobs().open(&blob.digest, Some(blob.size), 0).await;
            bytes = kept.map_err(super::cache_fault)?;
        }
        match bytes {
            Some(bytes) => Ok(Some(plain(bytes).await.map_err(unreadable)?)),
            None => Ok(None),
        }
    }
}

/// Remembers which paths are in a base image's layer, while the daemon gets it, if that is not known. What fails here is tried once
/// more when the build is kept.
pub(super) async fn index_layer(records: Records, from: Shelf, blob: Digest, diff_id: DiffId, cores: Arc<Semaphore>) {
    let key = key(&blob, &diff_id);
    let known = records.read::<LayerIndex>(std::slice::from_ref(&key)).await;
    if known.is_ok_and(|known| !known.is_empty()) {
        return;
    }
    let Some(bytes) = from.follow(&blob).await else { return };
    let Ok(_one) = cores.acquire().await else { return };
    if let Some(index) = index(plain(bytes).await.ok(), Some(&diff_id)).await {
        let _ = records.write([(key, index)]).await;
    }
}

/// What a layer's tar holds.
pub(super) async fn read_tree(layer: ByteStream) -> std::io::Result<Tree> {
    let tree = tokio::task::spawn_blocking(move || Tree::of_tar(SyncIoBridge::new(layer))).await;
    tree.map_err(std::io::Error::other)?
}

/// The index of a layer; nothing where its paths cannot be told, and nothing can be laid on it then. Of a layer that no daemon has
/// unpacked yet, whose diff ID is its image's word alone, the bytes are held against that.
pub(super) async fn index(layer: Option<ByteStream>, expected: Option<&DiffId>) -> Option<LayerIndex> {
    let (layer, expected) = (layer?, expected.cloned());
    let read = tokio::task::spawn_blocking(move || {
        let mut from = Hashing { inner: SyncIoBridge::new(layer), hasher: expected.is_some().then(Hasher::default) };
        let index = LayerIndex::of_tar(&mut from)?;
        // To the end, where what was kept is held against its digest.
        std::io::copy(&mut from, &mut std::io::sink())?;
        let found = from.hasher.map(|hasher| hasher.digest().of_uncompressed());
        std::io::Result::Ok((found == expected).then_some(index))
    });
    read.await.ok()?.ok()?
}

/// Hashes what is read, if it is to.
struct Hashing<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}
