//! The minimum rate of a registry. Without it, a registry that sends or accepts a few bytes every minute could delay a run for days.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::retry::Patience;

/// How far a registry is behind its minimum rate. All its reads and uploads share it.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The end of the last wait.
    at: Option<Instant>,
    /// The bytes that are missing.
    behind: u64,
}

impl Rate {
    /// Notes that an operation has waited for the registry from `since` until now, and that it moved these bytes. Returns whether the
    /// registry is too slow. Operations that wait at the same time count once. Time in which none waits does not count.
    pub(super) fn waited(&self, since: Instant, moved: u64, patience: &Patience) -> bool {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.at.map_or(since, |at| at.max(since));
        state.at = Some(now);
        // A process that was stopped for an hour did not wait for the registry, and a debt must be payable.
        let time = now.saturating_duration_since(from).min(patience.stall);
        let most = bytes(patience.rate, patience.slow);
        state.behind = (state.behind + bytes(patience.rate, time)).saturating_sub(moved).min(most);
        state.behind >= most
    }

    /// Notes that bytes moved while nobody counted the time.
    pub(super) fn moved(&self, bytes: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.behind = state.behind.saturating_sub(bytes);
    }
}

fn bytes(rate: u64, time: Duration) -> u64 {
    rate.saturating_mul(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)) / 1000
}

/// Returns why hakobi gives such a registry up.
pub(super) fn too_slow(patience: &Patience) -> String {
    format!("the registry is {} s behind a rate of {} KiB per second", patience.slow.as_secs(), patience.rate >> 10)
}
