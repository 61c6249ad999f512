//! Decides how hakobi plans again after the cache did not supply the layers of an image.

use crate::cache::opened::CacheRefusal;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::error::Result;
use crate::planner::build_plan::BuildPlan;
use crate::planner::lost_layers;
use crate::planner::replan::Replan;
use crate::run::context::BuildContext;

/// Returns how to plan again. A layer that the cache has lost costs the steps that made it. Any other fault costs the cache.
///
/// # Errors
/// If the cache is given up, and is required.
pub async fn replan_after(
    why: &CacheRefusal,
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> Result<Replan> {
    if matches!(why, CacheRefusal::Lacking)
        && let Ok(Some(lost)) = lost_layers::lost_layers(plan, cache, records).await
    {
        return Ok(Replan::LayersLost(lost));
    }
    context.cache.cache_refused(why)?;
    Ok(Replan::CacheUnusable)
}
