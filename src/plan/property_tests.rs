//! What holds for the keys and the plan of any build, tried with random graphs and random caches.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::decide::{Plan, rests_on, states};
use super::{KnownFacts, StepRecord};
use crate::domain::{DiffId, Digest, StepKey};
use crate::graph::testing::Made;
use crate::graph::{Graph, Input, Key, Keys};

/// A step of a random build, on one of the states before it.
#[derive(Debug, Clone)]
enum Step {
    /// A command, by its text.
    Command { on: usize, text: u32 },
    /// A copy out of another of the states before it.
    Copy { on: usize, from: usize },
}

impl Step {
    fn on(&self) -> usize {
        match self {
            Self::Command { on, .. } | Self::Copy { on, .. } => *on,
        }
    }
}

/// One to twelve steps. State 0 is the base image, and state N what step N makes.
fn builds() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<bool>(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    prop::collection::vec(step, 1..12).prop_map(|steps| {
        let step = |(number, (is_command, on, from)): (usize, (bool, prop::sample::Index, prop::sample::Index))| {
            let on = on.index(number + 1);
            // Nothing is copied out of the base image.
            match is_command || number == 0 {
                true => Step::Command { on, text: u32::try_from(number).unwrap_or_default() },
                false => Step::Copy { on, from: 1 + from.index(number) },
            }
        };
        steps.into_iter().enumerate().map(step).collect()
    })
}

/// A build as a graph, with its states and all that is known of its leaves. What is copied out of a state is as it always was.
fn graph(steps: &[Step]) -> (Graph, Vec<Input>, KnownFacts) {
    graph_with(steps, |number, _| format!("what state {number} has"))
}

/// The same, with this content of what is copied out of a state.
fn graph_with(steps: &[Step], content: impl Fn(usize, &Input) -> String) -> (Graph, Vec<Input>, KnownFacts) {
    let mut made = Made::default();
    let base = made.source("docker-image://base");
    let mut all = vec![base.clone()];
    for step in steps {
        let state = match step {
            Step::Command { on, text } => made.command(&all[*on], &text.to_string()),
            Step::Copy { on, from } => made.copy(&all[*on], &all[*from], "/out"),
        };
        all.push(state);
    }
    let graph = made.graph(&all[steps.len()]);
    let mut facts = KnownFacts::default();
    facts.images.insert(base.step, Ok(vec![DiffId::hash(b"base")]));
    for source in Keys::new(&graph, &facts).copy_sources().to_vec() {
        let number = all.iter().position(|state| *state == source.state).unwrap_or_default();
        facts.seen.insert(source.place(), Digest::hash(content(number, &source.state).as_bytes()));
    }
    (graph, all, facts)
}

fn known(keys: &Keys, state: &Input) -> StepKey {
    match keys.state(state) {
        Key::Known(key) => key,
        other => panic!("no key: {other:?}"),
    }
}

/// The plan of a build with the records of those states for which `is_recorded` is true.
fn planned(steps: &[Step], is_recorded: &[bool]) -> (Graph, KnownFacts, Plan) {
    let (graph, _, facts) = graph(steps);
    let keys = Keys::new(&graph, &facts);
    let record = || StepRecord { layers: Vec::new(), ran: Some(1) };
    let recorded = states(&graph).into_iter().zip(is_recorded).filter(|(_, is_recorded)| **is_recorded);
    let records: HashMap<StepKey, StepRecord> = recorded.map(|(state, _)| (known(&keys, &state), record())).collect();
    let plan = Plan::new(&graph, &keys, &records, &facts.seen, None);
    (graph, facts, plan)
}

proptest! {
    /// A command that changes changes the keys of all that is built on it. What only copies from there keeps its key as long as the
    /// copied files are the same.
    #[test]
    fn a_change_reaches_just_what_is_built_on_it(steps in builds(), changed in any::<prop::sample::Index>()) {
        let changed = changed.index(steps.len());
        let mut other = steps.clone();
        if let Step::Command { text, .. } = &mut other[changed] {
            *text += 1000;
        }
        let is_changed = matches!(steps[changed], Step::Command { .. });
        let mut reached: HashSet<usize> = HashSet::new();
        for (number, step) in steps.iter().enumerate() {
            if (is_changed && number == changed) || reached.contains(&step.on()) {
                reached.insert(number + 1);
            }
        }
        let ((one, ours, our_facts), (two, theirs, their_facts)) = (graph(&steps), graph(&other));
        let (our_keys, their_keys) = (Keys::new(&one, &our_facts), Keys::new(&two, &their_facts));
        // Only what the result needs has a key.
        let needed: HashSet<Digest> = one.below(one.result()).into_iter().map(|op| op.digest.clone()).collect();
        for number in 1..=steps.len() {
            if needed.contains(&ours[number].step) {
                let is_same = known(&our_keys, &ours[number]) == known(&their_keys, &theirs[number]);
                prop_assert_eq!(is_same, !reached.contains(&number), "state {}", number);
            }
        }
    }

    /// Two different builds, whose steps all make different files, never have one key for their results.
    #[test]
    fn different_builds_have_different_keys(one in builds(), two in builds()) {
        let build = |steps: &[Step]| graph_with(steps, |_, state| state.step.to_string());
        let ((one, _, our_facts), (two, _, their_facts)) = (build(&one), build(&two));
        let ours = known(&Keys::new(&one, &our_facts), one.result());
        let theirs = known(&Keys::new(&two, &their_facts), two.result());
        let needed = |graph: &Graph| graph.below(graph.result()).into_iter().map(|op| op.digest.clone()).collect::<HashSet<_>>();
        prop_assert!(needed(&one) == needed(&two) || ours != theirs);
    }

    /// Whatever the cache has: a step that runs finds all that it needs, nothing is brought that nobody needs, and no state of
    /// the cache rests on a step that runs again.
    #[test]
    fn a_plan_is_whole_and_does_not_mix_runs(steps in builds(), is_recorded in prop::collection::vec(any::<bool>(), 12)) {
        let (graph, facts, plan) = planned(&steps, &is_recorded);
        let is_source = |state: &Input| graph.op(&state.step).is_some_and(|op| op.inputs.is_empty());
        let running: Vec<_> = graph.below(graph.result()).into_iter().filter(|op| plan.runs(&op.digest)).collect();
        for input in running.iter().flat_map(|op| &op.inputs) {
            prop_assert!(is_source(input) || plan.cached.contains_key(input) || plan.runs(&input.step), "{:?} is missing", input);
        }
        for state in plan.cached.keys() {
            let is_used = state == graph.result() || running.iter().any(|op| op.inputs.contains(state));
            prop_assert!(is_used, "nobody needs {:?}", state);
            let rests_on_one_that_runs = rests_on(&graph, &facts.seen, state).into_iter().any(|op| plan.runs(&op.digest));
            prop_assert!(!rests_on_one_that_runs, "{:?} is of another run", state);
        }
        prop_assert_eq!(plan.unchanged, plan.cached.contains_key(graph.result()));
        prop_assert!(!plan.unchanged || running.is_empty());
    }

    /// With all records nothing runs, and with none at least as much as with some.
    #[test]
    fn a_whole_cache_runs_nothing(steps in builds(), is_recorded in prop::collection::vec(any::<bool>(), 12)) {
        let running = |recorded: &[bool]| {
            let (graph, _, plan) = planned(&steps, recorded);
            graph.below(graph.result()).into_iter().filter(|op| plan.runs(&op.digest)).count()
        };
        let some = running(&is_recorded);
        prop_assert_eq!(running(&[true; 12]), 0);
        prop_assert!(some <= running(&[false; 12]));
    }
}
