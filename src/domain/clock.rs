//! The time of the system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds since the Unix epoch.
#[must_use]
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
