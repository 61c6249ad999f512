//! What is remembered of a planned build, however it was made: records, behind the layers that they name.

use std::collections::{HashMap, HashSet};

use crate::cache::fault::cache_fault;
use crate::cache::session::Kept;
use crate::domain::StepKey;
use crate::error::Result;
use crate::executor::reuse;
use crate::graph::{Input, Key, Keys};
use crate::handover::Composed;
use crate::plan::{HopeRecord, ImageRecord, Inputs, LayerRecord, StepRecord, TakenRecord, layer_key};
use crate::planner::build_plan::BuildPlan;
use crate::planner::recall;
use crate::registry::{Home as _, Source as _};
use crate::run::context::BuildContext;
use crate::save::only_image;

/// A build whose layers are in the store.
pub struct Remembering<'a> {
    pub planned: &'a BuildPlan,
    pub kept: &'a Kept,
    /// By all that is known at the end.
    pub keys: &'a Keys,
    pub image: &'a Composed,
    pub inputs: &'a Inputs,
}

/// Writes what became of each state, and what the next run begins with.
pub async fn remember(
    context: &BuildContext<'_>,
    build: &Remembering<'_>,
    records: HashMap<Input, StepRecord>,
    taken: Vec<(StepKey, TakenRecord)>,
) -> Result<()> {
    let Remembering { planned, kept, keys, image, inputs } = *build;
    let faulty = cache_fault::<crate::store::Error>;
    let hopes: Vec<_> = records.keys().filter_map(|state| Some((keys.weak(state)?, HopeRecord {}))).collect();
    let keyed = |(state, record)| match keys.state(&state) {
        Key::Known(key) => Some((key, record)),
        _ => None,
    };
    let store = kept.records();
    let known = planned.plan.kept.values().flat_map(|record| &record.layers).map(layer_key);
    let known: HashSet<StepKey> = known.collect();
    let new = records.values().flat_map(|record| &record.layers).map(layer_key).filter(|key| !known.contains(key));
    let new: HashSet<StepKey> = new.collect();
    store.write(new.into_iter().map(|key| (key, LayerRecord {}))).await.map_err(faulty)?;
    store.write(taken).await.map_err(faulty)?;
    store.write(records.into_iter().filter_map(keyed)).await.map_err(faulty)?;
    store.write(hopes).await.map_err(faulty)?;
    store.write([(kept.inputs_key(), inputs)]).await.map_err(faulty)?;
    store.write(planned.facts.asked.iter().cloned()).await.map_err(faulty)?;
    if let Some(compiled) = planned.compiled_by.as_ref()
        && let Some(record) = recall::compiled_record(context, compiled, planned).await
    {
        store.write([record]).await.map_err(faulty)?;
    }
    let Some(own) = kept.own() else { return Ok(()) };
    let put = async |manifest: &crate::domain::RawManifest, reference: &str| {
        own.put_manifest(manifest, reference).await.map_err(cache_fault)
    };
    put(&image.manifest, &image.manifest.digest().to_string()).await?;
    if let Key::Known(key) = keys.state(planned.graph.result()) {
        let record = ImageRecord { manifest: image.manifest.descriptor() };
        store.write([(reuse::image_key(context, &key, planned), record)]).await.map_err(faulty)?;
    }
    point(context, kept, image).await
}

/// Has the image's name in the store stand for this one: what `cache ls`, `restore` and `export` know it by.
pub async fn point(_context: &BuildContext<'_>, kept: &Kept, image: &Composed) -> Result<()> {
    let (Some(own), Some(target)) = (kept.own(), kept.target()) else { return Ok(()) };
    let index = only_image(image).map_err(cache_fault)?;
    let faulty = cache_fault::<crate::registry::Error>;
    let tag = target.reference();
    if own.manifest(&tag).await.map_err(faulty)?.is_some_and(|there| there.digest() == index.digest()) {
        return Ok(());
    }
    own.put_manifest(&index, &tag).await.map(drop).map_err(faulty)
}
