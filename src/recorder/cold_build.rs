//! Remembers how long a build took in which everything ran.

use crate::plan::ColdRecord;
use crate::planner::plan::seconds_now;
use crate::run::context::BuildContext;

/// Remembers how long this build took, in which everything ran.
pub async fn remember_cold(context: &BuildContext<'_>, seconds: f64) {
    let Some((cache, faults)) = context.cache.usable().filter(|(cache, _)| cache.target().is_some()) else { return };
    if !faults.gave_up() && cache.has_begun() {
        let record = ColdRecord { seconds, ended: seconds_now() };
        // Nothing but a sentence comes of it.
        let _ = cache.records().write([(cache.cold_key(), record)]).await;
    }
}
