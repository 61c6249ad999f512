//! What the daemon has of other builds below commands with cache mounts.
//!
//! BuildKit's keys ignore times. If the daemon has the result of a step, it takes that, with the times of the build that made it, and not
//! those with which hakobi sends the context. A tool could then take a file for older than what it once made of another version. So
//! copies below such commands run again. Commands do not, because BuildKit would empty their cache mounts: if the daemon may have the
//! result of one, the mounts above it stay empty.
//!
//! A daemon may have several directories for one mount: BuildKit makes another one if the first is in use (`sharing=private`), or
//! if its garbage collection looks at it just then (`mounts/mount.go`, `cache/manager.go`). Then nobody knows which one a command
//! gets, so what hakobi saw in one says nothing.

use std::collections::{HashMap, HashSet};

use crate::domain::Digest;
use crate::engine::buildkit::{CachedItem, pb};
use crate::executor::execution::Execution;
use crate::executor::mount_container::{ReachableMount, uses};
use crate::executor::mount_layers::steps_below;
use crate::executor::progress::SolveProgress;
use crate::graph::{CacheMount, Op, instruction_of};
use crate::plan::is_automatic;
use crate::planner::build_plan::BuildPlan;

/// What follows from the daemon's results for cache mounts.
#[derive(Debug, Default)]
pub struct DaemonResults {
    /// The steps that must run again.
    pub afresh: HashSet<Digest>,
    /// Why mounts must stay empty, by their keys.
    pub unfit: HashMap<String, String>,
    /// The keys of mounts of which the daemon has several.
    pub several: HashSet<String>,
}

/// Returns what follows for these mounts.
pub async fn look(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: &mut SolveProgress,
    mounts: &[&ReachableMount],
) -> DaemonResults {
    let below = below(plan, progress, mounts);
    if progress.mounts.cached.is_none() && mounts.iter().any(is_declared) {
        let cached = execution.daemon.buildkit.cached().await;
        progress.mounts.cached = cached.inspect_err(|error| tracing::info!(%error, "the daemon's cache is not known")).ok();
    }
    let mut found = DaemonResults::default();
    if let Some(cached) = &progress.mounts.cached {
        let several = |mount: &&&ReachableMount| {
            cached.iter().filter(|item| is_of_mount(item, &mount.mount, &mount.own_target())).count() > 1
        };
        found.several = mounts.iter().filter(several).map(|mount| mount.key.clone()).collect();
    }
    for (key, step) in below {
        let is_solved = progress.solved.contains(&step.digest);
        if !is_solved && !step.is_command() {
            found.afresh.insert(step.digest.clone());
        } else if is_solved || progress.mounts.cached.as_ref().is_none_or(|cached| has_result(cached, step)) {
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
    let declared = mounts.iter().filter(|mount| is_declared(mount));
    let used = declared.flat_map(|mount| commands.iter().filter(|op| uses(plan, op, &mount.key)).map(|op| (&*mount.key, *op)));
    let all = used.flat_map(|(key, op)| steps_below(plan, op).into_iter().map(move |step| (key, step)));
    let steps = all.filter_map(|(key, step)| Some((key, plan.graph.op(&step)?)));
    let may_differ = |step: &Op| !is_source(step) && plan.decision.runs(&step.digest) && !progress.ran.contains(&step.digest);
    steps.filter(|(_, step)| may_differ(step)).collect()
}

/// Returns whether the times of files count for a mount. Tools with automatic mounts do not go by them.
fn is_declared(mount: &&ReachableMount) -> bool {
    !is_automatic(&mount.mount.id)
}

fn is_source(step: &Op) -> bool {
    matches!(step.op.op, Some(pb::op::Op::Source(_)))
}

/// Returns whether one of these is the result of a command: BuildKit says `mount / from exec` and the arguments (`ops/exec.go`).
fn has_result(cached: &[CachedItem], command: &Op) -> bool {
    let Some(pb::op::Op::Exec(exec)) = &command.op.op else { return true };
    let arguments = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
    cached.iter().any(|item| item.is_result && item.description.contains(&arguments))
}

/// Returns whether an item is a directory of a mount: BuildKit says `cached mount`, where a command first saw it, and from 0.9 on the ID
/// if that is another (`mounts/mount.go`).
fn is_of_mount(item: &CachedItem, mount: &CacheMount, own_target: &str) -> bool {
    let Some(rest) = item.description.strip_prefix("cached mount ").filter(|_| item.is_cache_mount) else { return false };
    let seen_at = |target: &str| rest.strip_prefix(target).is_some_and(|rest| rest.starts_with(" from "));
    match rest.rsplit_once(" with id ") {
        Some((_, id)) => id == format!("{:?}", mount.id),
        None => [&mount.target, &mount.id, own_target].into_iter().any(seen_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_a_mount_are_found_by_its_id_or_its_place() {
        let mount =
            CacheMount { id: "//obj".to_owned(), target: "/obj".to_owned(), sharing: 0, base: None, selector: String::new() };
        let is_obj = |is_cache_mount: bool, description: &str| {
            let item = CachedItem { is_result: !is_cache_mount, is_cache_mount, description: description.to_owned() };
            is_of_mount(&item, &mount, "/mounts/12")
        };
        for description in [
            "cached mount /obj from exec /bin/sh -c make",
            "cached mount /mounts/12 from exec /hakobi mount-process",
            "cached mount /elsewhere from exec /bin/sh -c make with id \"//obj\"",
        ] {
            assert!(is_obj(true, description) && !is_obj(false, description), "{description}");
        }
        for other in [
            "cached mount /object from exec /bin/sh -c make",
            "cached mount /mounts/123 from exec /hakobi mount-process",
            "cached mount /obj from exec /bin/sh -c make with id \"//other\"",
            "mount / from exec /bin/sh -c make",
        ] {
            assert!(!is_obj(true, other), "{other}");
        }
    }
}
