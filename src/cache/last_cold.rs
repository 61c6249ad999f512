//! Looks up how long an image took when every step ran. hakobi compares its other builds with this duration.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cache::opened::OpenedCache;
use crate::cache::session::CacheSession;
use crate::output::ColdReport;
use crate::plan::ColdRecord;

/// How long the end of a run waits for a value that hakobi only reports.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The last such build. hakobi looks it up while the run goes on.
pub struct LastCold(Option<JoinHandle<Option<ColdRecord>>>);

impl LastCold {
    pub fn look(store: Option<&OpenedCache<'_>>) -> Self {
        let looking = |session: &CacheSession| {
            let (records, key) = (session.records(), session.cold_key());
            // Other readers report a fault of the store.
            tokio::spawn(async move { records.one(&key).await.ok()? })
        };
        Self(store.and_then(|store| store.session.as_ref()).map(looking))
    }

    /// Returns the last such build, or `None` if there is none or the look-up takes too long.
    pub async fn found(self) -> Option<ColdReport> {
        let record = tokio::time::timeout(PATIENCE, self.0?).await.ok()?.ok()??;
        let ended = jiff::Timestamp::from_second(i64::try_from(record.ended).ok()?).ok()?;
        Some(ColdReport { seconds: record.seconds, ended: ended.to_string() })
    }
}
