//! Decides which cached states replace which steps.

use std::collections::{HashMap, HashSet};

use bollard_buildkit_proto::pb;

use super::facts::Seen;
use super::record::StepRecord;
use crate::domain::{Digest, StepKey};
use crate::graph::{Graph, Input, InputDependency, Key, Keys, Op, input_dependencies};

/// The decision on a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The cache has its result.
    Hit,
    /// It runs.
    Miss,
    /// No step needs it.
    Skipped,
    /// It runs each time, for this reason.
    Uncacheable(String),
}

impl Verdict {
    /// Returns whether the step runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self, Self::Miss | Self::Uncacheable(_))
    }
}

/// The steps that have to run, and the cached states that they run on.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Cached states that a step builds on, or that are the result.
    pub cached: HashMap<Input, StepRecord>,
    /// The decisions on all steps that make layers.
    pub verdicts: HashMap<Digest, Verdict>,
    /// Whether the cache has the result itself.
    pub unchanged: bool,
    /// Commands that run only because of their age, with the time when they last ran, if known, in seconds of the Unix epoch.
    pub old: HashMap<Digest, Option<u64>>,
    /// Copies that only run again because a command with a cache mount compares the times of their files.
    pub copied_again: HashSet<Digest>,
}

impl Plan {
    /// Returns whether a step runs.
    #[must_use]
    pub fn runs(&self, step: &Digest) -> bool {
        self.verdicts.get(step).is_some_and(Verdict::runs)
    }

    /// Returns the keys to look up: the result's key first, if it has one, then the keys of all states below.
    #[must_use]
    pub fn wanted(graph: &Graph, keys: &Keys) -> Vec<StepKey> {
        let mut wanted = Vec::new();
        for state in states(graph) {
            if let Key::Known(key) = keys.state(&state)
                && !wanted.contains(&key)
            {
                wanted.push(key);
            }
        }
        wanted
    }

    /// Decides from the result backwards: if the cache has a state, hakobi does not look at the steps below it. Results of this run
    /// and of another run must not mix. So hakobi does not use a cached state if a step below it has to run for another step. It
    /// also does not use a state if a command below it ran before `since`, in seconds of the Unix epoch.
    #[must_use]
    pub fn new(graph: &Graph, keys: &Keys, records: &HashMap<StepKey, StepRecord>, seen: &Seen, since: Option<u64>) -> Self {
        let old = since.map(|since| older(graph, keys, records, since)).unwrap_or_default();
        let mut unusable = must_run(graph, seen, &old);
        loop {
            let plan = Self { old: old.clone(), ..Self::without(graph, keys, records, &unusable) };
            let runs = |op: &&Op| plan.runs(&op.digest);
            let mixed = plan.cached.keys().filter(|state| rests_on(graph, seen, state).iter().any(runs));
            let mixed: Vec<Digest> = mixed.map(|state| state.step.clone()).collect();
            if mixed.is_empty() {
                return plan;
            }
            unusable.extend(mixed);
        }
    }

    fn without(graph: &Graph, keys: &Keys, records: &HashMap<StepKey, StepRecord>, unusable: &HashSet<Digest>) -> Self {
        // An image without layers has nothing that the cache could lose.
        let nothing = StepRecord { layers: Vec::new(), ran: None };
        let record = |state: &Input| match keys.state(state) {
            _ if graph.is_nothing() => Some(&nothing),
            Key::Known(key) if !unusable.contains(&state.step) => records.get(&key),
            _ => None,
        };
        let mut plan = Self::default();
        let (mut seen, mut open) = (HashSet::new(), vec![graph.result().clone()]);
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            let Some(op) = graph.op(&state.step) else { continue };
            if let Some(record) = record(&state) {
                plan.cached.insert(state.clone(), record.clone());
                continue;
            }
            if makes_layers(op) {
                let verdict = match keys.state(&state) {
                    Key::Unknown(why) => Verdict::Uncacheable(why),
                    _ => Verdict::Miss,
                };
                plan.verdicts.insert(op.digest.clone(), verdict);
            }
            open.extend(op.inputs.iter().cloned());
        }
        plan.unchanged = plan.cached.contains_key(graph.result());
        let links = plan.cached.keys().flat_map(|state| graph.chain_of(state).links);
        let below: HashSet<Digest> = links.flat_map(|link| [link.state.step, link.made_by]).collect();
        for op in graph.below(graph.result()).into_iter().filter(|op| makes_layers(op)) {
            let verdict = if below.contains(&op.digest) { Verdict::Hit } else { Verdict::Skipped };
            plan.verdicts.entry(op.digest.clone()).or_insert(verdict);
        }
        plan
    }
}

/// Returns all states of steps that make layers, the result first.
pub(super) fn states(graph: &Graph) -> Vec<Input> {
    let mut out = vec![graph.result().clone()];
    for input in graph.below(graph.result()).into_iter().flat_map(|op| &op.inputs) {
        if graph.op(&input.step).is_some_and(makes_layers) && !out.contains(input) {
            out.push(input.clone());
        }
    }
    out
}

/// Returns whether a step makes layers of its own.
fn makes_layers(op: &Op) -> bool {
    matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_) | pb::op::Op::Merge(_) | pb::op::Op::Diff(_)))
}

/// Returns the steps that a state rests on. Leaves out steps if this run has seen the files copied out of them, because then only
/// these files count.
pub(super) fn rests_on<'a>(graph: &'a Graph, seen: &Seen, state: &Input) -> Vec<&'a Op> {
    let (mut found, mut open) = (HashSet::new(), vec![state.step.clone()]);
    let mut out = Vec::new();
    while let Some(op) = open.pop().and_then(|step| graph.op(&step)) {
        if found.insert(op.digest.clone()) {
            out.push(op);
            open.extend(inputs(op, seen).map(|input| input.step.clone()));
        }
    }
    out
}

/// Returns the inputs of a step that count as a whole, and not only by the content that this run has seen.
fn inputs<'a>(op: &'a Op, seen: &Seen) -> impl Iterator<Item = &'a Input> {
    op.inputs.iter().zip(input_dependencies(op)).filter_map(|(input, used)| match used {
        InputDependency::Content(selectors) if seen.contains_key(&(input.clone(), selectors.clone())) => None,
        _ => Some(input),
    })
}

/// Returns the commands below cached states that ran before a time, or may have.
fn older(graph: &Graph, keys: &Keys, records: &HashMap<StepKey, StepRecord>, since: u64) -> HashMap<Digest, Option<u64>> {
    let record = |state: &Input| match keys.state(state) {
        Key::Known(key) => records.get(&key),
        _ => None,
    };
    let ran: HashMap<Digest, Option<u64>> =
        states(graph).iter().filter_map(|state| Some((state.step.clone(), record(state)?.ran))).collect();
    let cached = states(graph).into_iter().filter(|state| ran.contains_key(&state.step));
    let below: HashMap<&Digest, &Op> = cached.flat_map(|state| graph.below(&state)).map(|op| (&op.digest, op)).collect();
    let commands = below.into_iter().filter(|(_, op)| matches!(op.op.op, Some(pb::op::Op::Exec(_))));
    let when = commands.map(|(step, _)| (step.clone(), ran.get(step).copied().flatten()));
    when.filter(|(_, ran)| ran.is_none_or(|ran| ran < since)).collect()
}

/// Returns the steps that must run even if the cache has them, and all steps that rest on these. Two runs of a step must not mix in
/// one image.
fn must_run(graph: &Graph, seen: &Seen, old: &HashMap<Digest, Option<u64>>) -> HashSet<Digest> {
    let mut out = HashSet::new();
    for op in graph.below(graph.result()) {
        if op.ignores_cache || old.contains_key(&op.digest) || inputs(op, seen).any(|input| out.contains(&input.step)) {
            out.insert(op.digest.clone());
        }
    }
    out
}
