//! What the daemon has of other builds below commands with cache mounts.
//!
//! BuildKit's keys ignore times. If the daemon has the result of a step, it takes that, with the times of the build that made it, and not
//! those with which hakobi sends the context. A tool could then take a file for older than what it once made of another version. So
//! copies below such commands run again. Commands do not, because BuildKit would empty their cache mounts: if the daemon may have the
//! result of one, the mounts above it stay empty.

use std::collections::{HashMap, HashSet};

use crate::domain::Digest;
use crate::engine::buildkit::pb;
use crate::executor::execution::Execution;
use crate::executor::mount_container::{ReachableMount, uses};
use crate::executor::mount_layers::steps_below;
use crate::executor::progress::SolveProgress;
use crate::graph::{Op, instruction_of};
use crate::plan::is_automatic;
use crate::planner::build_plan::BuildPlan;

/// What follows from the daemon's results for cache mounts.
#[derive(Debug, Default)]
pub struct DaemonResults {
    /// The steps that must run again.
    pub afresh: HashSet<Digest>,
    /// Why mounts must stay empty, by their keys.
    pub unfit: HashMap<String, String>,
}

/// Returns what follows for these mounts.
pub async fn look(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: &mut SolveProgress,
    mounts: &[&ReachableMount],
) -> DaemonResults {
    let below = below(plan, progress, mounts);
    if progress.mounts.results.is_none() && below.iter().any(|(_, step)| step.is_command()) {
        let results = execution.daemon.buildkit.results().await;
        progress.mounts.results = results.inspect_err(|error| tracing::info!(%error, "the daemon's results are not known")).ok();
    }
    let mut found = DaemonResults::default();
    for (key, step) in below {
        let is_solved = progress.solved.contains(&step.digest);
        if !is_solved && !step.is_command() {
            found.afresh.insert(step.digest.clone());
        } else if is_solved || progress.mounts.results.as_ref().is_none_or(|results| has_result(results, step)) {
            let why =
                format!("the daemon may have a result of `{}` from another build than the mount's", instruction_of(&step.name));
            found.unfit.entry(key.to_owned()).or_insert(why);
        }
    }
    found
}

/// Returns the steps below the commands with these mounts that were or will be solved and have not run, with the mounts' keys.
fn below<'a>(plan: &'a BuildPlan, progress: &SolveProgress, mounts: &[&'a ReachableMount]) -> Vec<(&'a str, &'a Op)> {
    let open = |op: &&Op| plan.decision.runs(&op.digest) && !progress.solved.contains(&op.digest);
    let commands: Vec<&Op> = plan.graph.below(plan.graph.result()).into_iter().filter(open).collect();
    // Tools with automatic mounts do not go by times.
    let declared = mounts.iter().filter(|mount| !is_automatic(&mount.mount.id));
    let used = declared.flat_map(|mount| commands.iter().filter(|op| uses(plan, op, &mount.key)).map(|op| (&*mount.key, *op)));
    let all = used.flat_map(|(key, op)| steps_below(plan, op).into_iter().map(move |step| (key, step)));
    let steps = all.filter_map(|(key, step)| Some((key, plan.graph.op(&step)?)));
    let may_differ = |step: &Op| !is_source(step) && plan.decision.runs(&step.digest) && !progress.ran.contains(&step.digest);
    steps.filter(|(_, step)| may_differ(step)).collect()
}

fn is_source(step: &Op) -> bool {
    matches!(step.op.op, Some(pb::op::Op::Source(_)))
}

/// Returns whether one of these is the result of a command: BuildKit says `mount / from exec` and the arguments (`ops/exec.go`).
fn has_result(results: &[String], command: &Op) -> bool {
    let Some(pb::op::Op::Exec(exec)) = &command.op.op else { return true };
    let arguments = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
    results.iter().any(|result| result.contains(&arguments))
}
