//! What would make the next build cheaper, read off the graph and what was measured. Nothing is advised without evidence: seconds
//! that a command took, a variable that changed, a base that moved.
//!
//! `installs` knows the package managers. `order`, `inputs` and `mounts` each see one kind of thing.

mod inputs;
mod installs;
mod mounts;
mod order;

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_buildkit_proto::pb;

use super::inputs::{Inputs, StepInputs, explained};
use crate::domain::Digest;
use crate::graph::{Graph, Op, Place};

/// Most that is told at once.
const MOST: usize = 5;

/// What takes less, in seconds, is not worth a word.
const WORTH: f64 = 1.0;

/// A piece of advice.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The file that it is about.
    pub file: String,
    /// Its line, from 1; 0 where unknown.
    pub line: u32,
    /// What it is about took so long when it was last measured.
    pub seconds: Option<f64>,
    /// A sentence or two.
    pub text: String,
}

/// What can be advised of a build in which these steps run, or ran: what took longest first.
#[must_use]
pub fn advise(graph: &Graph, runs: &HashSet<Digest>, before: Option<&Inputs>, now: &Inputs) -> Vec<Advice> {
    let seen = Build::new(graph, runs, before, now);
    let mut all = order::copies_before_installs(&seen);
    all.extend(mounts::downloads(&seen));
    if before.is_some() {
        all.extend(inputs::variables(&seen));
        all.extend(inputs::bases(&seen));
        all.extend(inputs::files(&seen));
    }
    // Of equals the first stays first.
    all.sort_by(|one, other| other.seconds.unwrap_or(0.0).total_cmp(&one.seconds.unwrap_or(0.0)));
    all.truncate(MOST);
    all
}

/// A build as advice looks at it.
struct Build<'a> {
    graph: &'a Graph,
    /// With inputs, in the graph's order.
    steps: Vec<Step<'a>>,
    /// Where each stands, by its digest.
    places: BTreeMap<String, Place>,
    /// Place in `steps`.
    by_digest: HashMap<&'a Digest, usize>,
}

/// A command or a file operation.
struct Step<'a> {
    op: &'a Op,
    now: &'a StepInputs,
    /// The same in the last build.
    before: Option<&'a StepInputs>,
    runs: bool,
}

impl<'a> Build<'a> {
    fn new(graph: &'a Graph, runs: &HashSet<Digest>, before: Option<&'a Inputs>, now: &'a Inputs) -> Self {
        let steps: Vec<Step<'a>> = explained(graph)
            .into_iter()
            .zip(&now.steps)
            .zip(super::pairs::paired(now, before))
            .map(|((op, now), before)| Step { op, now, before, runs: runs.contains(&op.digest) })
            .collect();
        let by_digest = steps.iter().enumerate().map(|(place, step)| (&step.op.digest, place)).collect();
        Self { graph, places: graph.places(), steps, by_digest }
    }

    /// The file and line of a step.
    fn place(&self, op: &Op) -> (String, u32) {
        let place = self.places.get(&op.digest.to_string());
        let line = place.and_then(|place| u32::try_from(place.line).ok()).unwrap_or(0);
        (place.map(|place| place.file.clone()).unwrap_or_default(), line)
    }

    /// What the steps that run took, of these and of all that is made on them or takes from them.
    fn seconds_behind(&self, first: &[usize]) -> Option<f64> {
        let mut behind: HashSet<usize> = first.iter().copied().collect();
        // Each step stands behind those that it needs.
        for (place, step) in self.steps.iter().enumerate() {
            if step.now.on.iter().any(|on| behind.contains(on)) {
                behind.insert(place);
            }
        }
        let ran = self.steps.iter().enumerate().filter(|(place, step)| step.runs && behind.contains(place));
        let known: Vec<f64> = ran.filter_map(|(_, step)| step.now.seconds).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    }
}

impl<'a> Step<'a> {
    fn exec(&self) -> Option<&'a pb::ExecOp> {
        match &self.op.op.op {
            Some(pb::op::Op::Exec(exec)) => Some(exec),
            _ => None,
        }
    }

    /// The command as the Dockerfile has it, variables not replaced.
    fn command(&self) -> Option<String> {
        Some(self.exec()?.meta.as_ref()?.args.join(" "))
    }
}

/// `RUN npm ci`, on one line and not too long.
fn named(step: &StepInputs) -> String {
    let line = step.instruction.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(50) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None => format!("`{line}`"),
    }
}

/// `4.2 s`, `41 s`, `2 min 5 s`.
fn lasted(seconds: f64) -> String {
    match seconds {
        ..9.95 => format!("{seconds:.1} s"),
        ..119.5 => format!("{seconds:.0} s"),
        _ => format!("{} min {} s", seconds.round() as u64 / 60, seconds.round() as u64 % 60),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}

#[cfg(test)]
mod tests;
