//! Files that tell of a run.

use clap::Arg;

use super::environment::Environment;
use super::given::{Given, text};
use crate::settings::RunFiles;

/// Their flags.
pub fn flags() -> [Arg; 2] {
    [
        text("report", "FILE", "Write a report in JSON"),
        text("timeline", "FILE.html", "Write a page that shows when what went on; it opens in a browser, without network"),
    ]
}

/// Where they go.
pub fn files(given: Given<'_>, environment: &Environment) -> RunFiles {
    let path = |name: &str| given.text(name).map(|file| environment.resolve(file));
    RunFiles { report: path("report"), timeline: path("timeline") }
}
