//! Records how long a build took in which a command ran, for the choice between the machine's daemon and one of hakobi's own.

use crate::run::context::BuildContext;

/// Records the duration of this build, by a daemon of hakobi's own or the machine's.
pub async fn record_run(context: &BuildContext<'_>, is_lazy: bool, seconds: f64) {
    let Some((cache, faults)) = context.cache.usable().filter(|(cache, _)| cache.target().is_some()) else { return };
    if faults.gave_up() || !cache.has_begun() {
        return;
    }
    let (records, key) = (cache.records(), cache.runs_key());
    // The choice goes by what builds usually take, so a lost duration does not matter.
    if let Ok(known) = records.one(&key).await {
        let mut runs = known.unwrap_or_default();
        runs.add(is_lazy, seconds);
        let _ = records.write([(key, runs)]).await;
    }
}
