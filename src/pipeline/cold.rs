//! How long an image took when everything ran: what its other builds are measured against.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::cache::Store;
use super::job::Job;
use super::kept::Kept;
use super::planning::seconds_now;
use crate::plan::ColdRecord;
use crate::report::ColdReport;

/// How long the end of a run waits for what is only told.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last such build, looked up while the run goes on.
pub(super) struct LastCold(Option<JoinHandle<Option<ColdRecord>>>);

impl LastCold {
    pub(super) fn look(store: Option<&Store<'_>>) -> Self {
        let looking = |kept: &Kept| {
            let (records, key) = (kept.records(), kept.cold_key());
            // A fault of the store is told where it matters.
            tokio::spawn(async move { records.read(std::slice::from_ref(&key)).await.ok()?.remove(&key) })
        };
        Self(store.and_then(|store| store.kept.as_ref()).map(looking))
    }

    /// What was found, if it was in time.
    pub(super) async fn found(self) -> Option<ColdReport> {
        let record = tokio::time::timeout(PATIENCE, self.0?).await.ok()?.ok()??;
        let ended = jiff::Timestamp::from_second(i64::try_from(record.ended).ok()?).ok()?;
        Some(ColdReport { seconds: record.seconds, ended: ended.to_string() })
    }
}

impl Job<'_> {
    /// Remembers how long this build took, in which everything ran.
    pub(super) async fn remember_cold(&self, seconds: f64) {
        let Some((kept, faults)) = self.kept().filter(|(kept, _)| kept.target().is_some()) else { return };
        if !faults.gave_up() && kept.has_begun() {
            let record = ColdRecord { seconds, ended: seconds_now() };
            // Nothing but a sentence comes of it.
            let _ = kept.records().write([(kept.cold_key(), record)]).await;
        }
    }
}
