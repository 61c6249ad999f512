//! Finds what would make the next build cheaper, from the graph and from measurements. hakobi gives no advice without evidence.
//! Evidence is the time of a command, a variable that changed, or a base image that moved.
//!
//! `order`, `inputs` and `mounts` each find one kind of problem.

mod inputs;
mod mounts;
mod order;

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_buildkit_proto::pb;

use super::inputs::{Inputs, StepInputs, explained};
use crate::domain::Digest;
use crate::graph::{Graph, Op, Place};

/// Most pieces of advice for one build.
const MOST: usize = 5;

/// Shorter times, in seconds, are not worth advice.
const WORTH: f64 = 1.0;

/// A piece of advice.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The file that it is about.
    pub file: String,
    /// The line in that file, from 1; 0 if unknown.
    pub line: u32,
    /// How long the steps took when they last ran.
    pub seconds: Option<f64>,
    /// One or two sentences.
    pub text: String,
}

/// Returns the advice for a build in which these steps run, or ran: the advice about the longest time first.
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
    // A stable sort keeps the order of equal times.
    all.sort_by(|one, other| other.seconds.unwrap_or(0.0).total_cmp(&one.seconds.unwrap_or(0.0)));
    all.truncate(MOST);
    all
}

/// A build as the advice sees it.
struct Build<'a> {
    graph: &'a Graph,
    /// The steps with inputs, in the graph's order.
    steps: Vec<Step<'a>>,
    /// The Dockerfile line of each step, by its digest.
    places: BTreeMap<String, Place>,
    /// The index of each step in `steps`.
    by_digest: HashMap<&'a Digest, usize>,
}

/// A command or a file operation.
struct Step<'a> {
    op: &'a Op,
    now: &'a StepInputs,
    /// The same step in the last build.
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

    /// Returns the file and line of a step.
    fn place(&self, op: &Op) -> (String, u32) {
        let place = self.places.get(&op.digest.to_string());
        let line = place.and_then(|place| u32::try_from(place.line).ok()).unwrap_or(0);
        (place.map(|place| place.file.clone()).unwrap_or_default(), line)
    }

    /// Returns how long these steps, and the steps that depend on them, took in this run. Returns `None` if no time is known.
    fn seconds_behind(&self, first: &[usize]) -> Option<f64> {
        let mut behind: HashSet<usize> = first.iter().copied().collect();
        // Each step comes after the steps that it needs.
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

    /// Returns the command as in the Dockerfile, with variables not replaced. Returns `None` for a file operation.
    fn command(&self) -> Option<String> {
        Some(self.exec()?.meta.as_ref()?.args.join(" "))
    }
}

/// Returns an instruction like `RUN npm ci`, on one line and not too long.
fn named(step: &StepInputs) -> String {
    let line = step.instruction.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(50) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None => format!("`{line}`"),
    }
}

/// Returns a duration as text: `4.2 s`, `41 s`, `2 min 5 s`.
fn lasted(seconds: f64) -> String {
    match seconds {
        ..9.95 => format!("{seconds:.1} s"),
        ..119.5 => format!("{seconds:.0} s"),
        _ => format!("{} min {} s", seconds.round() as u64 / 60, seconds.round() as u64 % 60),
    }
}

/// Returns a list as text: `a`, `a and b`, `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}

#[cfg(test)]
mod tests;
