//! Writes the records of a planned build, after the layers that they name.

use std::collections::{HashMap, HashSet};

use crate::cache::fault::cache_fault;
use crate::cache::session::CacheSession;
use crate::domain::CopiedContentKey;
use crate::error::Result;
use crate::executor::reuse;
use crate::graph::{Input, Key, Keys};
use crate::handover::PreparedImage;
use crate::plan::{
    CopiedContentRecord, ImageRecord, Inputs, LayerRecord, PartialKeyRecord, StepRecord, copied_content_key, layer_key,
    partial_key, step_key,
};
use crate::planner::build_plan::BuildPlan;
use crate::planner::recall;
use crate::registry::{Home as _, Source as _};
use crate::run::context::BuildContext;
use crate::save::only_image;

/// A build whose layers are in the store.
pub struct BuildRecord<'a> {
    pub plan: &'a BuildPlan,
    pub cache: &'a CacheSession,
    /// The keys with all facts that are known at the end.
    pub keys: &'a Keys,
    pub image: &'a PreparedImage,
    pub inputs: &'a Inputs,
}

/// Writes the records of the states, and what the next run starts with.
///
/// # Errors
/// If the cache fails.
pub async fn write_build(
    context: &BuildContext<'_>,
    build: &BuildRecord<'_>,
    records: HashMap<Input, StepRecord>,
    copied: Vec<(CopiedContentKey, CopiedContentRecord)>,
) -> Result<()> {
    let BuildRecord { plan, cache, keys, image, inputs } = *build;
    let faulty = cache_fault::<crate::store::Error>;
    let speculative_states: Vec<_> = records
        .keys()
        .filter_map(|state| Some((partial_key(&keys.key_without_copied_content(state)?), PartialKeyRecord {})))
        .collect();
    let keyed = |(state, record)| match keys.state(&state) {
        Key::Known(key) => Some((step_key(&key), record)),
        _ => None,
    };
    let store = cache.records();
    tracing::info!(states = records.len(), copied = copied.len(), "writing records");
    let known = plan.decision.cached.values().flat_map(|record| &record.layers).map(layer_key);
    let known: HashSet<_> = known.collect();
    let new = records.values().flat_map(|record| &record.layers).map(layer_key).filter(|key| !known.contains(key));
    let new: HashSet<_> = new.collect();
    store.write(new.into_iter().map(|key| (key, LayerRecord {}))).await.map_err(faulty)?;
    store.write(copied.into_iter().map(|(key, record)| (copied_content_key(&key), record))).await.map_err(faulty)?;
    store.write(records.into_iter().filter_map(keyed)).await.map_err(faulty)?;
    store.write(speculative_states).await.map_err(faulty)?;
    store.write([(cache.inputs_key(), inputs)]).await.map_err(faulty)?;
    store.write(plan.facts.asked.iter().cloned()).await.map_err(faulty)?;
    store.write(plan.facts.looked.iter().cloned()).await.map_err(faulty)?;
    if let Some(compiled) = plan.compiled_by.as_ref()
        && let Some(record) = recall::compiled_record(context, compiled, plan).await
    {
        store.write([record]).await.map_err(faulty)?;
    }
    let Some(own) = cache.own() else { return Ok(()) };
    let put = async |manifest: &crate::domain::RawManifest, reference: &str| {
        own.put_manifest(manifest, reference).await.map_err(cache_fault)
    };
    put(&image.manifest, &image.manifest.digest().to_string()).await?;
    if let Key::Known(key) = keys.state(plan.graph.result()) {
        let record = ImageRecord { manifest: image.manifest.descriptor() };
        store.write([(reuse::image_key(context, &key, plan), record)]).await.map_err(faulty)?;
    }
    move_reference(context, cache, image).await
}

/// Lets the image's tag in the store name this image: `cache ls`, `restore` and `export` find it there.
///
/// # Errors
/// If the cache fails.
pub async fn move_reference(_context: &BuildContext<'_>, cache: &CacheSession, image: &PreparedImage) -> Result<()> {
    let (Some(own), Some(target)) = (cache.own(), cache.target()) else { return Ok(()) };
    let index = only_image(image).map_err(cache_fault)?;
    let faulty = cache_fault::<crate::registry::Error>;
    let tag = target.reference();
    if own.manifest(&tag).await.map_err(faulty)?.is_some_and(|there| there.digest() == index.digest()) {
        return Ok(());
    }
    own.put_manifest(&index, &tag).await.map(drop).map_err(faulty)
}
