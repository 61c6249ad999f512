//! The results of a build, besides its report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::Digest;
use crate::graph::Place;
use crate::output::{Note, RunReport, Tier};

/// The report of a build, with values that do not belong into it.
#[derive(Debug, Default)]
pub struct Built {
    /// The report without the steps, which the display knows.
    pub report: RunReport,
    /// The Dockerfile lines of the steps, by the steps' digests.
    pub places: BTreeMap<String, Place>,
    /// Text for standard output.
    pub text: Option<String>,
    /// The exit code of a `--call` that found a problem.
    pub exit_code: u8,
    /// The plan's notes on the steps, by the steps' digests.
    pub notes: std::collections::HashMap<String, Note>,
    /// The tier according to the plan, or `None` if the steps decide it.
    pub tier: Option<Tier>,
    /// Whether every step ran, as far as hakobi could see.
    pub ran_all: bool,
    /// Whether a command of a plan ran.
    pub ran_commands: bool,
}

impl Built {
    /// Notes why a step was not appended.
    pub fn not_appended(&mut self, step: &Digest, why: &str) {
        let note = self.notes.get_mut(&step.to_string());
        if let Some(note) = note.filter(|note| !note.reason.contains(why)) {
            add_not_appended(&mut note.reason, why);
        }
    }

    /// Copies a step's note to the digest that the step has in a rewritten graph.
    pub fn also_named(&mut self, name: &Digest, step: &Digest) {
        if let Some(note) = self.notes.get(&step.to_string()).cloned() {
            self.notes.insert(name.to_string(), note);
        }
    }

    /// Adds layers and bytes that a build saved to the cache, and sets how long that took.
    pub fn saved(&mut self, layers: u64, bytes: u64, took: Duration) {
        self.report.layers.saved += layers;
        self.report.bytes.saved += bytes;
        self.report.seconds.save = took.as_secs_f64();
    }
}

/// Adds to the reason of a step why the daemon pulls its base image.
pub fn add_not_appended(reason: &mut String, why: &str) {
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    reason.push_str(&format!("pulling its base image: {why}"));
}
