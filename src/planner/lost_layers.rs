//! Checks that the cache has the layers that a plan reuses.

use std::collections::{HashMap, HashSet};

use crate::cache::fault::cache_fault;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::Digest;
use crate::error::Result;
use crate::graph::Key;
use crate::local_registry::CacheRepository;
use crate::plan::{StepRecord, step_key};
use crate::planner::build_plan::{BuildPlan, LostLayers};
use crate::registry::Home as _;

/// Returns the states and base images whose layers the cache has lost, or `None` if it has all layers.
///
/// # Errors
/// If the store does not answer.
pub async fn lost_layers(plan: &BuildPlan, cache: &CacheSession, records: &RecordReader<'_>) -> Result<Option<LostLayers>> {
    let Some(own) = cache.own() else { return Ok(None) };
    let bases = plan.recorded_bases.iter().flatten();
    let there = layers_there(own, plan.decision.cached.values().chain(bases.clone().map(|(_, record)| record))).await?;
    let mut lost = LostLayers::default();
    for (state, record) in &plan.decision.cached {
        let Key::Known(key) = plan.keys.state(state) else { continue };
        // Either the record or the blob is wrong, so hakobi uses neither.
        if has_other_sizes(record, &there) {
            records.refuse(&step_key(&key));
        }
        if !is_whole(record, &there) {
            lost.states.push(key);
        }
    }
    lost.bases.extend(bases.filter(|(_, record)| !is_whole(record, &there)).map(|(base, _)| base.clone()));
    Ok((!lost.states.is_empty() || !lost.bases.is_empty()).then_some(lost))
}

/// Returns the sizes of those layers of these records that the store has.
pub async fn layers_there<'a>(
    own: &CacheRepository,
    records: impl Iterator<Item = &'a StepRecord>,
) -> Result<HashMap<Digest, u64>> {
    let layers: HashSet<Digest> = records.flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
    let layers: Vec<Digest> = layers.into_iter().collect();
    own.sizes(&layers).await.map_err(cache_fault)
}

/// Returns whether the store has all layers of a record.
pub fn is_whole(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().all(|layer| there.get(&layer.blob.digest) == Some(&layer.blob.size))
}

/// Returns whether a layer in the store has another size than in the record.
pub fn has_other_sizes(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().any(|layer| there.get(&layer.blob.digest).is_some_and(|size| *size != layer.blob.size))
}
