//! The layers that commands with a cache mount see. A tool compares their files with what it made in the mount, by their times.
//!
//! A cached layer has the times of the build that made it. After a change and its reversal, these are older than what the tool made of
//! the change, and the tool would take that for up to date. So a mount is brought in only beside layers that its commands saw in the
//! build that saved it, and beside new ones.

use std::collections::{BTreeSet, HashSet};

use crate::domain::{DiffId, Digest};
use crate::executor::mount_container::uses;
use crate::graph::{Input, Op};
use crate::mounts::record::CarriedMount;
use crate::planner::build_plan::BuildPlan;

/// Returns a command that uses the mount on layers of an earlier build than the mount's. Returns `None` if there is none.
pub fn misfit<'a>(plan: &'a BuildPlan, key: &str, carried: &CarriedMount) -> Option<&'a Op> {
    let open = plan.graph.below(plan.graph.result()).into_iter().filter(|op| plan.decision.runs(&op.digest));
    open.filter(|op| uses(plan, op, key)).find(|op| !cached_layers(plan, op).is_subset(&carried.below))
}

/// Returns the layers that a command sees of cached states, without those of base images.
pub fn cached_layers(plan: &BuildPlan, command: &Op) -> BTreeSet<DiffId> {
    let below = steps_below(plan, command);
    let cached = plan.decision.cached.iter().filter(|(state, _)| below.contains(&state.step));
    without_bases(plan, cached.flat_map(|(_, record)| record.layers.iter().map(|layer| layer.diff_id.clone())))
}

/// Returns the steps that a command rests on.
pub fn steps_below(plan: &BuildPlan, command: &Op) -> HashSet<Digest> {
    command.inputs.iter().flat_map(|state: &Input| plan.graph.below(state)).map(|op| op.digest.clone()).collect()
}

/// Leaves out the layers of base images. Their files are as old as the image, for every tool and on every machine.
pub fn without_bases(plan: &BuildPlan, layers: impl IntoIterator<Item = DiffId>) -> BTreeSet<DiffId> {
    let known = plan.facts.images.values().flatten().flatten().cloned();
    let recorded = plan.recorded_bases.iter().flatten().flat_map(|(_, record)| &record.layers).map(|layer| layer.diff_id.clone());
    let bases: HashSet<DiffId> = known.chain(recorded).collect();
    layers.into_iter().filter(|layer| !bases.contains(layer)).collect()
}
