//! The flags for the files that report a run.

use clap::Arg;

use super::environment::Environment;
use super::given::{Given, text};
use crate::settings::RunFiles;

/// Returns the flags.
pub fn flags() -> [Arg; 2] {
    [
        text("report", "FILE", "Write a JSON report of the run"),
        text("timeline", "FILE.html", "Write an HTML page with the timeline of the run; it needs no network"),
    ]
}

/// Resolves the paths of the files.
pub fn files(given: Given<'_>, environment: &Environment) -> RunFiles {
    let path = |name: &str| given.text(name).map(|file| environment.resolve(file));
    RunFiles { report: path("report"), timeline: path("timeline") }
}
