//! What a run has had solved so far.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::build_context::Tree;
use crate::domain::{Digest, Selector};
use crate::event::Events;
use crate::graph::{Graph, Input, Op, Place, RewrittenGraph, Substitution};
use crate::plan::explained;
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::save::Executed;

/// What a run has had solved so far, in terms of the whole graph.
#[derive(Default)]
pub struct SolveProgress {
    /// What stood in for states.
    pub substitutions: HashMap<Input, Substitution>,
    /// Steps of the solves that came to their end.
    pub solved: HashSet<Digest>,
    /// Those that ran.
    pub ran: HashSet<Digest>,
    /// How long these took, in seconds.
    pub seconds: HashMap<Digest, f64>,
    /// The files of what was looked at.
    pub trees: HashMap<(Input, Vec<Selector>), Tree>,
    /// Whether images stood in for what steps made.
    pub has_states: bool,
    /// Whether the daemon pulls base images itself.
    pub bypasses: bool,
    /// Steps whose results were looked at.
    pub looked_at: HashSet<Digest>,
    /// Whether one of these ran again: what was seen of it is not what the image has then.
    pub ran_again: bool,
    /// What could not be looked at: what is copied from there is not known.
    pub unknown: HashSet<(Input, Vec<Selector>)>,
    /// Whether the cache turned out to lack layers.
    pub has_lost_layers: bool,
    /// What is to be reported of it.
    pub findings: Findings,
    pub spent: Spent,
}

/// What an execution found out that the report says.
#[derive(Debug, Default)]
pub struct Findings {
    /// Where the steps of rewritten graphs stand in the Dockerfile, by their digests.
    pub places: BTreeMap<String, Place>,
    /// The digests that steps have in rewritten graphs, with those that they have in the plan's.
    pub names: HashMap<Digest, Digest>,
    /// Steps that were not appended, and why.
    pub not_appended: HashMap<Digest, String>,
}

/// How long the parts of an execution took, in seconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Spent {
    pub build: f64,
    pub push: f64,
}

impl SolveProgress {
    /// Whether anything was made, other than brought.
    pub fn ran_steps(&self, graph: &Graph) -> bool {
        self.ran.iter().any(|step| graph.op(step).is_some_and(|op| !op.inputs.is_empty()))
    }

    /// Whether everything ran that can, and there is such a thing.
    pub fn ran_all(&self, graph: &Graph) -> bool {
        let all = explained(graph);
        !all.is_empty() && all.into_iter().all(|op| self.ran.contains(&op.digest))
    }

    /// Whether a command ran.
    pub fn ran_commands(&self, graph: &Graph) -> bool {
        let is_command = |step| graph.op(step).is_some_and(Op::is_command);
        self.ran.iter().any(is_command)
    }

    /// Whether anything stands in for a state or a base.
    pub fn has_substituted_images(&self) -> bool {
        self.substitutions.values().any(Substitution::is_image)
    }

    /// Has these stand in for states from here on. What a step was given already stays as it is, so that the daemon finds its work again:
    /// another image there, or the steps in its place, would make another step of it. Only what has to run now is not stood in for.
    pub fn take_substitutions(&mut self, new: HashMap<Input, Substitution>, plan: &BuildPlan) {
        self.substitutions.retain(|state, _| !plan.decision.runs(&state.step));
        for (state, substitution) in new {
            if !self.solved.contains(&state.step) {
                self.substitutions.entry(state).or_insert(substitution);
            }
        }
    }

    /// Forgets what stands in for states if it is not to be used any more.
    pub fn replanned(&mut self, why: &Replan, events: &Events) {
        match why {
            Replan::CacheUnusable | Replan::RemotesMoved => self.substitutions.clear(),
            Replan::BypassBaseProxy(why) => self.bypass_pull_through(why, events),
            Replan::LayersLost(_) if !std::mem::replace(&mut self.has_lost_layers, true) => {
                events.note("cached layers are missing; rebuilding the steps that need them");
            }
            Replan::LayersLost(_) | Replan::SourcesMoved(_) | Replan::Observed(_) => {}
        }
    }

    /// Notes where the steps of a rewritten graph stand in the user's file, and which steps of the plan they are.
    pub fn locate(&mut self, rewritten: &RewrittenGraph) {
        let graph = Graph::new(rewritten.definition.clone()).ok();
        self.findings.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
        self.findings.names.extend(rewritten.names.iter().map(|(step, name)| (name.clone(), step.clone())));
    }

    /// Notes why a step is not appended; tells whether that is new.
    pub fn not_appended(&mut self, step: &Digest, why: &str) -> bool {
        self.findings.not_appended.insert(step.clone(), why.to_owned()).is_none_or(|before| before != why)
    }

    /// From here on the daemon pulls base images itself.
    pub fn bypass_pull_through(&mut self, why: &str, events: &Events) {
        events.note(format!("the daemon pulls base images itself, because a layer did not pass through hakobi: {why}"));
        self.bypasses = true;
        self.substitutions.clear();
    }

    pub fn note(&mut self, rewritten: &RewrittenGraph, executed: &Executed) {
        for (step, name) in &rewritten.names {
            if executed.ended(name) {
                self.ran.insert(step.clone());
                self.seconds.extend(executed.seconds(name).map(|seconds| (step.clone(), seconds)));
                self.ran_again |= self.looked_at.contains(step);
            }
        }
    }

    /// Whether a solve failed because something from elsewhere is not what was found before.
    pub fn blames_pins(&self, message: &str) -> bool {
        const SAID: [&str; 3] = ["digest mismatch", "failed to fetch remote", "failed to checkout remote"];
        let elsewhere = |substitution: &Substitution| {
            ["http://", "https://", "git://"].iter().any(|scheme| substitution.identifier.starts_with(scheme))
        };
        SAID.iter().any(|said| message.contains(said)) && self.substitutions.values().any(elsewhere)
    }
}
