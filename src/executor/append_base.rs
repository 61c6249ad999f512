//! The state that new files are added to, if the cache knows its paths.

use crate::cache::layer_index;
use crate::cache::record_reader::RecordReader;
use crate::error::Result;
use crate::layers::PathIndex;
use crate::plan::{Appendable, Layer, RecordKey, StepRecord};
use crate::planner::build_plan::BuildPlan;
use crate::planner::lookup;

/// The state that new files are added to: its layers, which are not downloaded, and the index of its paths.
#[derive(Default)]
pub struct AppendBase {
    pub layers: Vec<Layer>,
    pub paths: PathIndex,
}

/// Reads the state that the open steps build on. Returns `None` if the cache does not know the state or the paths of all its
/// layers.
///
/// # Errors
/// If the cache fails and is required.
pub async fn known_base(plan: &BuildPlan, open: &Appendable, records: &RecordReader<'_>) -> Result<Option<AppendBase>> {
    let Some(base_state) = &open.base_state else { return Ok(Some(AppendBase::default())) };
    let record = match plan.decision.cached.get(base_state) {
        Some(record) => Some(record.clone()),
        None => lookup::record_of(plan, base_state, records).await?,
    };
    let Some(StepRecord { layers, .. }) = record else { return Ok(None) };
    let keys: Vec<_> = layers.iter().map(|layer| layer_index::key(&layer.blob.digest, &layer.diff_id)).collect();
    let indexes = records.read(keys.iter().cloned(), RecordKey::clone).await?;
    let known: Option<Vec<_>> = keys.iter().map(|key| indexes.get(key)).collect();
    Ok(known.map(|known| AppendBase { paths: PathIndex::from_layers(known), layers }))
}
