//! How long an image took when everything ran: what its other builds are measured against.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cache::opened::OpenedCache;
use crate::cache::session::CacheSession;
use crate::output::ColdReport;
use crate::plan::ColdRecord;

/// How long the end of a run waits for what is only told.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The last such build, looked up while the run goes on.
pub struct LastCold(Option<JoinHandle<Option<ColdRecord>>>);

impl LastCold {
    pub fn look(store: Option<&OpenedCache<'_>>) -> Self {
        let looking = |kept: &CacheSession| {
            let (records, key) = (kept.records(), kept.cold_key());
            // A fault of the store is told where it matters.
            tokio::spawn(async move { records.one(&key).await.ok()? })
        };
        Self(store.and_then(|store| store.session.as_ref()).map(looking))
    }

    /// What was found, if it was in time.
    pub async fn found(self) -> Option<ColdReport> {
        let record = tokio::time::timeout(PATIENCE, self.0?).await.ok()?.ok()??;
        let ended = jiff::Timestamp::from_second(i64::try_from(record.ended).ok()?).ok()?;
        Some(ColdReport { seconds: record.seconds, ended: ended.to_string() })
    }
}
