//! Says of the cache mounts of commands that run whether hakobi brings their saved content in, or why not.

use crate::executor::mount_container::ReachableMount;
use crate::graph::{CacheMount, Op, cache_mounts};
use crate::mounts::record::{CarriedMount, MountCost, shown_id};
use crate::planner::build_plan::BuildPlan;

/// What the plan says of a cache mount.
#[derive(Debug, Clone)]
pub struct MountOutlook {
    /// Its key in the record. `None` if hakobi does not carry it.
    pub key: Option<String>,
    /// Its ID in the Dockerfile.
    pub id: String,
    /// What an earlier build has saved.
    pub carried: Option<CarriedMount>,
    /// Why hakobi does not bring it in. `None` if it does, unless the daemon has it.
    pub why_not: Option<String>,
}

/// Returns the mounts of these commands, each once. A mount that hakobi brings in for one command is there for the others.
#[must_use]
pub fn outlooks<'a>(plan: &BuildPlan, commands: impl IntoIterator<Item = &'a Op>) -> Vec<MountOutlook> {
    let mut all: Vec<MountOutlook> = Vec::new();
    for new in commands.into_iter().flat_map(|op| cache_mounts(op).into_iter().map(|mount| outlook(plan, op, mount))) {
        match all.iter_mut().find(|one| (&one.key, &one.id) == (&new.key, &new.id)) {
            Some(same) if same.why_not.is_some() => *same = new,
            Some(_) => {}
            None => all.push(new),
        }
    }
    all
}

fn outlook(plan: &BuildPlan, op: &Op, mount: CacheMount) -> MountOutlook {
    let id = shown_id(&mount.id).to_owned();
    let Ok(Some(reachable)) = ReachableMount::new(plan, mount) else {
        let why = "hakobi does not keep a mount that begins with the files of an image or a stage";
        return MountOutlook { key: None, id, carried: None, why_not: Some(why.to_owned()) };
    };
    let record = plan.mounts.as_ref().and_then(Option::as_ref);
    let carried = record.and_then(|record| record.mounts.get(&reachable.key)).cloned();
    let why_not = if plan.mounts_key.is_none() {
        Some("--cache-mounts off".to_owned())
    } else if op.ignores_cache {
        Some("BuildKit empties the mounts of a command that must not use its cache (--no-cache, --max-age)".to_owned())
    } else if !plan.knows_sources() {
        Some("hakobi cannot read all files of the context".to_owned())
    } else {
        carried.as_ref().map_or_else(|| Some("no build has saved it".to_owned()), |carried| loss(carried.cost))
    };
    MountOutlook { key: Some(reachable.key), id, carried, why_not }
}

/// Returns why a mount is not worth it, by what was measured. Returns `None` if it is.
fn loss(cost: MountCost) -> Option<String> {
    let MountCost { bring: Some(bring), cold: Some(cold), warm: Some(warm) } = cost else { return None };
    let effect = match cold - warm {
        gain if gain > 0.0 => format!("made its commands {gain:.1}s faster"),
        _ => "did not make its commands faster".to_owned(),
    };
    cost.is_loss().then(|| format!("it took {bring:.1}s to bring in, and {effect}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_given_in_seconds() {
        let of = |bring, cold, warm| loss(MountCost { bring: Some(bring), cold: Some(cold), warm: Some(warm) });
        assert_eq!(of(60.0, 30.0, 20.0).as_deref(), Some("it took 60.0s to bring in, and made its commands 10.0s faster"));
        assert_eq!(of(60.0, 30.0, 31.0).as_deref(), Some("it took 60.0s to bring in, and did not make its commands faster"));
        assert_eq!(of(5.0, 30.0, 20.0), None);
        assert_eq!(loss(MountCost::default()), None);
    }
}
