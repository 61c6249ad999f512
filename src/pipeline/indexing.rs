//! The path indexes of an image's layers, which later runs lay files on without having the layers.

use futures::StreamExt as _;
use tokio_util::io::SyncIoBridge;

use super::recording::{Proved, Recording};
use crate::append::LayerIndex;
use crate::domain::{Descriptor, DiffId, StepKey};
use crate::error::{Error, Kind, Result};
use crate::handover::Composed;
use crate::transfer::ByteStream;
use crate::transfer::compress::plain;

/// What a layer's index is remembered by.
pub(super) fn key(diff_id: &DiffId) -> StepKey {
    StepKey::of(format!("hakobi layer index 1\n{diff_id}").as_bytes())
}

impl Recording<'_> {
    /// Remembers which paths are in an image's layers, as far as that is not known.
    pub(super) async fn index(&self, image: &Composed, proved: &Proved<'_>) -> Result<()> {
        let faulty = |error: crate::store::Error| Error::new(Kind::Cache, error.to_string());
        let store = self.kept.records();
        let keys: Vec<StepKey> = image.diff_ids.iter().map(key).collect();
        let absent = store.absent(&keys).await.map_err(faulty)?;
        let layers = image.layers.iter().zip(keys).filter(|(_, key)| absent.contains(key));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let indexes = futures::stream::iter(layers)
            .map(|(blob, key)| async move { Ok(index(self.layer(blob, proved).await?).await.map(|index| (key, index))) })
            .buffer_unordered(threads);
        let indexes: Vec<Result<Option<(StepKey, LayerIndex)>>> = indexes.collect().await;
        let indexes: Vec<_> = indexes.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        store.write(indexes).await.map_err(faulty)
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
            bytes = kept.map_err(|error| Error::new(Kind::Cache, error.to_string()))?;
        }
        match bytes {
            Some(bytes) => Ok(Some(plain(bytes).await.map_err(unreadable)?)),
            None => Ok(None),
        }
    }
}

/// The index of a layer; nothing where its paths cannot be told, and nothing can be laid on it then.
async fn index(layer: Option<ByteStream>) -> Option<LayerIndex> {
    let layer = layer?;
    let read = tokio::task::spawn_blocking(move || {
        let mut from = SyncIoBridge::new(layer);
        let index = LayerIndex::of_tar(&mut from)?;
        // To the end, where what was kept is held against its digest.
        std::io::copy(&mut from, &mut std::io::sink())?;
        std::io::Result::Ok(index)
    });
    read.await.ok()?.ok()
}
