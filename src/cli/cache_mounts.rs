//! Declares and parses the flags of carried cache mounts and of the times of the context's files.

use std::time::Duration;

use clap::Arg;

use super::given::{Given, choice, switch, text};
use super::words;
use crate::error::{Error, Result};
use crate::settings::{CacheMode, CacheSettings, FileTimes, MountMode, MountSettings};

/// How long saving mounts may take, unless the user says otherwise.
const BUDGET: Duration = Duration::from_mins(10);

/// The cap of one mount, in bytes.
const MOST_BYTES: u64 = 2 << 30;

/// The cap of all mounts of a build, in bytes.
const MOST_TOTAL: u64 = 5 << 30;

/// Returns the flags.
pub fn flags() -> Vec<Arg> {
    vec![
        choice(
            "cache-mounts",
            "MODE",
            &["on", "read-only", "off"],
            "Whether to keep the content of RUN --mount=type=cache in the cache [default: on; read-only with --cache-mode read-only]",
        ),
        choice(
            "context-times",
            "WHICH",
            &["kept", "own"],
            "Modification times of unchanged files of the context: those of the build that saved the cache mounts, or the files' own \
             [default: kept, if cache mounts are kept]",
        ),
        text(
            "save-budget",
            "TIME",
            "How long saving cache mounts may take after the push, and bringing them in before the build [default: 10m]",
        ),
        text("cache-mount-max", "SIZE", "Largest size of one cache mount in the cache [default: 2GiB]"),
        text("cache-mounts-max", "SIZE", "Largest size of all cache mounts of a build in the cache [default: 5GiB]"),
        switch("save-failed-mounts", "Save cache mounts also after a failed build"),
        switch(
            "auto-mounts",
            "Give commands of build stages the caches of their tools (Go, npm, pip and others) as cache mounts, without an edit to the \
             Dockerfile",
        ),
    ]
}

/// Resolves the flags. Without a cache there are no carried mounts, and a cache that is only read gets none.
///
/// # Errors
/// If a value is invalid.
pub fn settings(given: Given<'_>, store: Option<&CacheSettings>) -> Result<MountSettings> {
    let mode = match (given.text("cache-mounts").as_deref(), store.map(|store| store.mode)) {
        (Some("off"), _) | (_, None) => MountMode::Off,
        (Some("read-only"), _) | (_, Some(CacheMode::ReadOnly)) => MountMode::ReadOnly,
        (_, Some(CacheMode::ReadWrite)) => MountMode::On,
    };
    let automatic = given.switch("auto-mounts");
    if automatic && mode == MountMode::Off {
        return Err(Error::usage("--auto-mounts requires a cache that keeps cache mounts")
            .hint("name a cache with --cache, and do not use --cache-mounts off"));
    }
    let times = match (given.text("context-times").as_deref(), mode) {
        (Some("own"), _) | (_, MountMode::Off) => FileTimes::Own,
        _ => FileTimes::Kept,
    };
    Ok(MountSettings {
        mode,
        times,
        budget: given.text("save-budget").map_or(Ok(BUDGET), |text| words::duration("save-budget", &text, "30s, 10m or 1h"))?,
        most_bytes: cap(given, "cache-mount-max", MOST_BYTES)?,
        most_total: cap(given, "cache-mounts-max", MOST_TOTAL)?,
        save_failed: given.switch("save-failed-mounts"),
        automatic,
    })
}

fn cap(given: Given<'_>, flag: &str, default: u64) -> Result<u64> {
    let Some(text) = given.text(flag) else { return Ok(default) };
    match u64::try_from(words::size(flag, &text)?) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => {
            Err(Error::usage(format!("invalid size for --{flag}: `{text}`"))
                .hint("use --cache-mounts off to keep no cache mounts"))
        }
    }
}
