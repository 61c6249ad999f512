//! The progress of a run's solves.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::build_context::Tree;
use crate::domain::{Digest, Selector};
use crate::event::Events;
use crate::executor::mount_state::MountProgress;
use crate::graph::{Graph, Input, InvalidGraph, Op, Place, RewrittenGraph, Substitution};
use crate::plan::explained;
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::save::Executed;

/// The progress of a run's solves, in terms of the whole graph.
#[derive(Default)]
pub struct SolveProgress {
    /// The images that replace states.
    pub substitutions: HashMap<Input, Substitution>,
    /// Steps of the solves that succeeded.
    pub solved: HashSet<Digest>,
    /// Steps that ran.
    pub ran: HashSet<Digest>,
    /// How long these steps took, in seconds.
    pub seconds: HashMap<Digest, f64>,
    /// The trees that hakobi looked at.
    pub trees: HashMap<(Input, Vec<Selector>), Tree>,
    /// Whether images replaced the results of steps.
    pub has_states: bool,
    /// Whether the daemon pulls base images itself.
    pub bypasses: bool,
    /// Steps whose results hakobi looked at.
    pub looked_at: HashSet<Digest>,
    /// Whether one of these ran again: the image then has other files than those that hakobi saw.
    pub ran_again: bool,
    /// Places that hakobi could not look at: the content of copies from there is not known.
    pub unknown: HashSet<(Input, Vec<Selector>)>,
    /// The cache mounts of the daemon.
    pub mounts: MountProgress,
    /// Findings for the report.
    pub findings: Findings,
    pub spent: Spent,
}

/// Findings of an execution for the report.
#[derive(Debug, Default)]
pub struct Findings {
    /// The Dockerfile lines of the steps in rewritten graphs, by the steps' digests.
    pub places: BTreeMap<String, Place>,
    /// The digests of steps in rewritten graphs, with their digests in the plan's graph.
    pub names: HashMap<Digest, Digest>,
    /// Steps that hakobi did not append, with the reason.
    pub not_appended: HashMap<Digest, String>,
}

/// How long the parts of an execution took, in seconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Spent {
    pub build: f64,
    pub push: f64,
}

impl SolveProgress {
    /// Returns the graph up to a state as the daemon gets it now.
    ///
    /// # Errors
    /// If the graph cannot be parsed.
    pub fn rewritten(&self, plan: &BuildPlan, state: &Input) -> Result<RewrittenGraph, InvalidGraph> {
        let mut rewritten = plan.graph.rewritten(state, &self.substitutions, &self.solved)?;
        rewritten.run_anyway(self.mounts.afresh.iter().filter(|step| !self.solved.contains(step)));
        Ok(rewritten)
    }

    /// Returns whether any step ran; fetching a source is no step.
    pub fn ran_steps(&self, graph: &Graph) -> bool {
        self.ran.iter().any(|step| graph.op(step).is_some_and(|op| !op.inputs.is_empty()))
    }

    /// Returns whether all explained steps ran, and there is at least one.
    pub fn ran_all(&self, graph: &Graph) -> bool {
        let all = explained(graph);
        !all.is_empty() && all.into_iter().all(|op| self.ran.contains(&op.digest))
    }

    /// Returns whether a command ran.
    pub fn ran_commands(&self, graph: &Graph) -> bool {
        let is_command = |step| graph.op(step).is_some_and(Op::is_command);
        self.ran.iter().any(is_command)
    }

    /// Returns whether an image replaces a state or a base image.
    pub fn has_substituted_images(&self) -> bool {
        self.substitutions.values().any(Substitution::is_image)
    }

    /// Replaces these states from now on. A replacement that a solved step used stays, so that the daemon finds its work again.
    /// Another image, or the original steps, would make it another step. States of steps that must run now get no replacement.
    pub fn take_substitutions(&mut self, new: HashMap<Input, Substitution>, plan: &BuildPlan) {
        self.substitutions.retain(|state, _| !plan.decision.runs(&state.step));
        for (state, substitution) in new {
            if !self.solved.contains(&state.step) {
                self.substitutions.entry(state).or_insert(substitution);
            }
        }
    }

    /// Removes replacements that the new plan must not use.
    pub fn replanned(&mut self, why: &Replan, events: &Events) {
        match why {
            Replan::CacheUnusable | Replan::RemotesMoved => self.substitutions.clear(),
            Replan::BypassBaseProxy(why) => self.bypass_pull_through(why, events),
            Replan::LayersLost(_) | Replan::SourcesMoved(_) | Replan::Observed(_) => {}
        }
    }

    /// Notes the Dockerfile lines of the steps in a rewritten graph, and which steps of the plan they are.
    pub fn locate(&mut self, rewritten: &RewrittenGraph) {
        let graph = Graph::new(rewritten.definition.clone()).ok();
        self.findings.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
        self.findings.names.extend(rewritten.names.iter().map(|(step, name)| (name.clone(), step.clone())));
    }

    /// Notes why hakobi does not append a step. Returns whether the reason is new.
    pub fn not_appended(&mut self, step: &Digest, why: &str) -> bool {
        self.findings.not_appended.insert(step.clone(), why.to_owned()).is_none_or(|before| before != why)
    }

    /// From now on, the daemon pulls base images itself.
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

    /// Returns whether a solve failed because a remote source is not what hakobi found before.
    pub fn is_pin_failure(&self, message: &str) -> bool {
        const SAID: [&str; 3] = ["digest mismatch", "failed to fetch remote", "failed to checkout remote"];
        let elsewhere = |substitution: &Substitution| {
            ["http://", "https://", "git://"].iter().any(|scheme| substitution.identifier.starts_with(scheme))
        };
        SAID.iter().any(|said| message.contains(said)) && self.substitutions.values().any(elsewhere)
    }
}
