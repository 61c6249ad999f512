//! Says of the cache mounts of commands that run whether hakobi brings their saved content in, or why not.

use crate::executor::mount_container::ReachableMount;
use crate::executor::mount_layers::misfit;
use crate::graph::{CacheMount, Op, cache_mounts, instruction_of};
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
        match &carried {
            None => Some("no build has saved it".to_owned()),
            Some(carried) => other_layers(plan, &reachable.key, carried).or_else(|| loss(carried.cost)),
        }
    };
    MountOutlook { key: Some(reachable.key), id, carried, why_not }
}

/// Returns why a mount does not fit the layers of its commands. Returns `None` if it does.
pub fn other_layers(plan: &BuildPlan, key: &str, carried: &CarriedMount) -> Option<String> {
    let command = misfit(plan, key, carried)?;
    Some(format!("`{}` runs on cached layers of another build than the mount's", instruction_of(&command.name)))
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
    use std::collections::BTreeSet;

    use crate::build::Compiled;
    use crate::domain::{Descriptor, Digest, media_type};
    use crate::engine::buildkit::pb;
    use crate::graph::testing::Made;
    use crate::mounts::SavedMount;
    use crate::mounts::record::MountsRecord;
    use crate::plan::{KnownFacts, RecordKey};

    /// Two commands: both use the mount `/obj`, and the second one also `/slow`, and `/base` with the files of an image.
    fn planned(carried: &[(&str, MountCost)]) -> BuildPlan {
        let mut made = Made::default();
        let base = made.source("docker-image://base");
        let cache = |id: &str, input| pb::Mount {
            dest: id.to_owned(),
            input,
            output: -1,
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt { id: format!("/{id}"), sharing: 0 }),
            ..pb::Mount::default()
        };
        let mut command = |inputs: &[_], mounts: Vec<pb::Mount>| {
            let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
            let mounts = std::iter::once(root).chain(mounts).collect();
            made.on(inputs, pb::op::Op::Exec(pb::ExecOp { mounts, ..pb::ExecOp::default() }))
        };
        let first = command(&[&base], vec![cache("/obj", -1)]);
        let second = command(&[&first, &base], vec![cache("/obj", -1), cache("/slow", -1), cache("/base", 1)]);
        let compiled =
            Compiled { definition: Default::default(), config: Vec::new(), platforms: None, engine: "28.5".to_owned() };
        let mut plan = BuildPlan::new(compiled, made.graph(&second), KnownFacts::default());
        let blob = Descriptor::new(media_type::OCI_LAYER_ZSTD, Digest::hash(b"list"), 1);
        let saved = SavedMount {
            list: blob.clone(),
            packs: Vec::new(),
            bytes: 5,
            files: 1,
            summary: Digest::hash(b"summary"),
            at: 0,
            newest: 0,
        };
        let mounts = carried.iter().map(|(id, cost)| {
            let id = format!("/{id}");
            (id.clone(), CarriedMount { id, saved: saved.clone(), below: BTreeSet::new(), cost: *cost })
        });
        let mounts = mounts.collect();
        plan.mounts_key = Some(RecordKey::from_text("mounts"));
        plan.mounts = Some(Some(MountsRecord { daemon: String::new(), times: blob, newest: 0, mounts }));
        plan
    }

    /// Returns each mount, and why it does not come.
    fn told(plan: &BuildPlan) -> Vec<(String, String)> {
        let commands = plan.graph.below(plan.graph.result()).into_iter().filter(|op| op.is_command());
        outlooks(plan, commands).into_iter().map(|one| (one.id, one.why_not.unwrap_or_default())).collect()
    }

    #[test]
    fn each_mount_has_its_reason() {
        let slow = MountCost { bring: Some(60.0), cold: Some(30.0), warm: Some(20.0) };
        let mut plan = planned(&[("/obj", MountCost::default()), ("/slow", slow), ("/base", MountCost::default())]);
        let expected = |obj: &str, slow: &str| {
            let base = "hakobi does not keep a mount that begins with the files of an image or a stage";
            [("/obj", obj), ("/slow", slow), ("/base", base)].map(|(id, why)| (id.to_owned(), why.to_owned())).to_vec()
        };
        let loss = "it took 60.0s to bring in, and made its commands 10.0s faster";
        assert_eq!(told(&plan), expected("", loss));
        let all: Vec<Digest> = plan.graph.below(plan.graph.result()).into_iter().map(|op| op.digest.clone()).collect();
        let commands = all.into_iter().filter(|step| plan.graph.op(step).is_some_and(Op::is_command)).collect::<Vec<_>>();
        // What comes in for one command is there for the other.
        let mut one = planned(&[("/obj", MountCost::default())]);
        one.graph.run_anyway(&commands[..1]);
        assert_eq!(told(&one), expected("", "no build has saved it"));
        let forced = "BuildKit empties the mounts of a command that must not use its cache (--no-cache, --max-age)";
        plan.graph.run_anyway(&commands);
        assert_eq!(told(&plan), expected(forced, forced));
        plan.mounts_key = None;
        assert_eq!(told(&plan), expected("--cache-mounts off", "--cache-mounts off"));
    }

    #[test]
    fn a_loss_is_given_in_seconds() {
        let of = |bring, cold, warm| loss(MountCost { bring: Some(bring), cold: Some(cold), warm: Some(warm) });
        assert_eq!(of(60.0, 30.0, 20.0).as_deref(), Some("it took 60.0s to bring in, and made its commands 10.0s faster"));
        assert_eq!(of(60.0, 30.0, 31.0).as_deref(), Some("it took 60.0s to bring in, and did not make its commands faster"));
        assert_eq!(of(5.0, 30.0, 20.0), None);
        assert_eq!(loss(MountCost::default()), None);
    }
}
