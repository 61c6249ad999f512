//! Records the duration of a build in which every step ran.

use crate::domain::seconds_now;
use crate::plan::ColdRecord;
use crate::run::context::BuildContext;

/// Records the duration of this build, in which every step ran.
pub async fn record_cold_build(context: &BuildContext<'_>, seconds: f64) {
    let Some((cache, faults)) = context.cache.usable().filter(|(cache, _)| cache.target().is_some()) else { return };
    if !faults.gave_up() && cache.has_begun() {
        let record = ColdRecord { seconds, ended: seconds_now() };
        // hakobi only reports this duration, so a failed write does not matter.
        let _ = cache.records().write([(cache.cold_key(), record)]).await;
    }
}
