//! Records images that hakobi made without a daemon.

use std::collections::HashMap;

use crate::cache::fault::cache_fault;
use crate::cache::layer_index;
use crate::cache::session::CacheSession;
use crate::error::{Error, Kind, Result};
use crate::executor::outcome::NewLayers;
use crate::executor::reuse;
use crate::graph::Input;
use crate::handover::PreparedImage;
use crate::plan::{ImageRecord, Inputs, Layer, RecordKey, StepRecord, layer_key};
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::Released;
use crate::recorder::states::{self, BuildRecord};
use crate::run::context::BuildContext;
use crate::transfer::BytesSource;
use crate::transfer::compress::plain;

/// Records that the reused image is the last one now. Writes again what the cache has lost or has damaged.
///
/// # Errors
/// If the cache fails and is required.
#[tracing::instrument(name = "record", level = "info", skip_all)]
pub async fn record_reused(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    released: &Released,
    is_as_recorded: bool,
) -> Result<()> {
    if let ([image], Some((_, faults))) = (&released.images[..], context.cache.usable())
        && let Err(error) = record_image(context, plan, cache, image, is_as_recorded).await
    {
        faults.warn_unsaved(&error)?;
    }
    Ok(())
}

async fn record_image(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    image: &PreparedImage,
    is_as_recorded: bool,
) -> Result<()> {
    if cache.target().is_none() {
        return Ok(());
    }
    if !is_as_recorded || !cache.unusable().is_empty() {
        let faulty = |error: crate::store::Error| Error::new(Kind::Cache, error.to_string());
        cache.begin().await.map_err(faulty)?;
        for bytes in [&image.config, &image.manifest.bytes] {
            cache.blobs().keep(&BytesSource::new(bytes.clone())).await.map_err(faulty)?;
        }
        if let Some(key) = plan.result_key() {
            let record = ImageRecord { manifest: image.manifest.descriptor() };
            cache.records().write([(reuse::image_key(context, &key, plan), record)]).await.map_err(faulty)?;
        }
    }
    states::move_reference(context, cache, image).await
}

/// Records an assembled image. Returns the blobs that are new in the cache.
///
/// # Errors
/// If the cache fails.
#[tracing::instrument(name = "record", level = "info", skip_all)]
pub async fn record_assembled(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    released: &Released,
    new: NewLayers,
    inputs: &Inputs,
) -> Result<crate::push::RepositoryBlobs> {
    if cache.target().is_none() {
        return released.saved().await;
    }
    // A lifecycle rule may have deleted the store's `hakobi.json`.
    cache.begin().await.map_err(cache_fault)?;
    let saved = released.saved().await?;
    let records = checked(context, plan, cache, new).await?;
    if let [image] = &released.images[..] {
        let build = BuildRecord { plan, cache, keys: &plan.keys, image, inputs };
        states::write_build(context, &build, records, Vec::new()).await?;
    }
    Ok(saved)
}

/// Returns whether the layers have the diff IDs of the base image's configuration; no daemon has unpacked them. Records their paths
/// too.
async fn proves(context: &BuildContext<'_>, cache: &CacheSession, layers: &[Layer]) -> bool {
    let records = cache.records();
    let keys: Vec<_> = layers.iter().map(layer_key).collect();
    let known = records.read(keys.iter().cloned(), RecordKey::clone).await.unwrap_or_default();
    for (layer, _) in layers.iter().zip(&keys).filter(|(_, key)| !known.contains_key(key)) {
        let bytes = cache.blobs().open(&layer.blob.digest, Some(layer.blob.size), 0).await;
        let Ok(Some(bytes)) = bytes else { return false };
        let Some(index) = layer_index::index(plain(bytes).await.ok(), Some(&layer.diff_id)).await else { return false };
        if !index.holds(context.events.hidden()) {
            let _ = records.write([(layer_index::key(&layer.blob.digest, &layer.diff_id), index)]).await;
        }
    }
    true
}

/// Writes the path indexes of layers that are now in the store. Returns the records of states whose layers are verified.
///
/// # Errors
/// If the cache does not accept the indexes.
pub async fn checked(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    new: NewLayers,
) -> Result<HashMap<Input, StepRecord>> {
    let NewLayers { mut records, indexes, of_base } = new;
    cache.records().write(indexes).await.map_err(cache_fault)?;
    if let Some(layers) = of_base
        && proves(context, cache, &layers).await
    {
        records.insert(plan.graph.result().clone(), StepRecord { layers, ran: None });
    }
    Ok(records)
}
