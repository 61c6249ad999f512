//! What a run knows of the daemon's cache mounts.

use std::collections::{HashMap, HashSet};

use crate::domain::Digest;
use crate::engine::buildkit::CachedItem;
use crate::mounts::times::ContextTimes;

/// What a run knows of the daemon's cache mounts.
#[derive(Debug, Default)]
pub struct MountProgress {
    /// The mounts that hakobi looked at, by their keys.
    pub states: HashMap<String, MountState>,
    /// Whether hakobi looked, so that the times of the context are settled.
    pub is_settled: bool,
    /// The times with which the context is sent. `None` if the files have their own.
    pub times: Option<ContextTimes>,
    /// Whether there are no right times, so that the saved mounts must not be used.
    pub is_unusable: bool,
    /// The steps whose results in the daemon have other times than the chosen ones, so that they must run.
    pub afresh: HashSet<Digest>,
    /// What BuildKit's cache had before a command with a mount ran. `None` before hakobi asked, or if BuildKit did not answer.
    pub cached: Option<Vec<CachedItem>>,
}

/// What a mount had before the commands ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MountState {
    /// Nothing: the daemon is new, and hakobi has brought nothing in (yet).
    Empty,
    /// The saved content. `at` is the kernel's time from which on a change is a change by this run, in nanoseconds since 1970;
    /// `seconds` is how long hakobi took to bring it in, `None` if it was there.
    Saved { at: i64, seconds: Option<f64> },
    /// Content that hakobi knows nothing of. It stays.
    Foreign,
}
