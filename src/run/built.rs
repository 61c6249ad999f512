//! What a build has to say beside its report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::Digest;
use crate::graph::Place;
use crate::output::{Note, RunReport, Tier};

/// What a build has to say beside its report.
#[derive(Debug, Default)]
pub struct Built {
    /// Everything but the steps, which the display knows.
    pub report: RunReport,
    /// Where the steps stand in the Dockerfile, by their digests.
    pub places: BTreeMap<String, Place>,
    /// What goes to standard output.
    pub text: Option<String>,
    /// The exit code of a call that found something.
    pub exit_code: u8,
    /// What the plan says of the steps, by their digests.
    pub notes: std::collections::HashMap<String, Note>,
    /// What the plan made of the image; what the steps tell where there was none.
    pub tier: Option<Tier>,
    /// Whether everything ran that can, as far as that was seen.
    pub ran_all: bool,
}

impl Built {
    /// Says of a step that could have been appended why it was not.
    pub fn not_appended(&mut self, step: &Digest, why: &str) {
        let note = self.notes.get_mut(&step.to_string());
        if let Some(note) = note.filter(|note| !note.reason.contains(why)) {
            add_not_appended(&mut note.reason, why);
        }
    }

    /// Says of a step under another digest, which it has in a rewritten graph, what is said of it.
    pub fn also_named(&mut self, name: &Digest, step: &Digest) {
        if let Some(note) = self.notes.get(&step.to_string()).cloned() {
            self.notes.insert(name.to_string(), note);
        }
    }

    /// Counts layers and bytes that a build saved to the cache, and how long that took.
    pub fn saved(&mut self, layers: u64, bytes: u64, took: Duration) {
        self.report.layers.saved += layers;
        self.report.bytes.saved += bytes;
        self.report.seconds.save = took.as_secs_f64();
    }
}

/// Adds to the reason why a step runs why its base comes down for it.
pub fn add_not_appended(reason: &mut String, why: &str) {
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    reason.push_str(&format!("pulling its base image: {why}"));
}
