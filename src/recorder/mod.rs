//! Compares the result with its keys, and records it: layers before the records that name them.

pub mod chain;
pub mod cold_build;
pub mod compare;
pub mod layers;
pub mod mounts;
pub mod observe;
pub mod record;
pub mod recording;
pub mod run_seconds;
pub mod stage_index;
pub mod states;
pub mod without_daemon;
