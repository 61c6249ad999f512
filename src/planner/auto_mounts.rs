//! Gives a plan's commands the caches of their tools as mounts (`--auto-mounts`), as far as the base images are known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cache::record_reader::RecordReader;
use crate::domain::{ChainId, Digest};
use crate::error::{Error, Result};
use crate::graph::{AddedMount, Graph, InvalidGraph};
use crate::plan::{AutoMount, KnownFacts, PathRecord, RecordKey, path_key};
use crate::planner::build_plan::BuildPlan;

/// Reads what earlier builds found in the base images of these mounts.
///
/// # Errors
/// If the cache fails and is required.
pub async fn recall_paths(wanted: &[AutoMount], facts: &mut KnownFacts, records: &RecordReader<'_>) -> Result<()> {
    let places = wanted.iter().flat_map(|one| one.without.iter().map(|path| (one.base.clone(), path.clone())));
    let keys = places.filter_map(|place| Some((key_of(facts, &place)?, place)));
    let keys: HashMap<RecordKey<PathRecord>, (Digest, String)> = keys.collect();
    let found = records.read(keys.keys().cloned(), RecordKey::clone).await?;
    facts.paths.extend(found.into_iter().filter_map(|(key, record)| Some((keys.get(&key)?.clone(), record.has_files))));
    Ok(())
}

/// Returns a graph with those of these mounts that hide no file of a base image.
///
/// # Errors
/// If the graph cannot be parsed.
pub fn mounted(graph: Graph, wanted: &[AutoMount], facts: &KnownFacts) -> Result<Graph, InvalidGraph> {
    let is_free = |base: &Digest, path: &String| facts.paths.get(&(base.clone(), path.clone())) == Some(&false);
    let mut mounts: HashMap<Digest, Vec<AddedMount>> = HashMap::new();
    for one in wanted.iter().filter(|one| one.without.iter().all(|path| is_free(&one.base, path))) {
        mounts.entry(one.step.clone()).or_default().push(one.mount.clone());
    }
    if mounts.is_empty() { Ok(graph) } else { graph.with_mounts(mounts) }
}

/// Returns the places in base images that hakobi must look at, by the images: those below a command that runs.
#[must_use]
pub fn unknown(plan: &BuildPlan) -> BTreeMap<Digest, BTreeSet<String>> {
    let all = plan.graph.below(plan.graph.result()).into_iter();
    let running: Vec<Digest> = all
        .filter(|op| op.is_command() && plan.decision.runs(&op.digest))
        .flat_map(|op| plan.graph.lineage(&crate::graph::Input { step: op.digest.clone(), output: 0 }))
        .map(|op| op.digest.clone())
        .collect();
    let mut unknown: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for one in plan.auto_mounts.iter().filter(|one| running.contains(&one.base)) {
        for path in one.without.iter().filter(|path| !plan.facts.paths.contains_key(&(one.base.clone(), (*path).clone()))) {
            unknown.entry(one.base.clone()).or_default().insert(path.clone());
        }
    }
    unknown
}

/// Takes what hakobi found in base images into a plan. The keys of the plan are then those of another graph.
///
/// # Errors
/// If the graph cannot be parsed.
pub fn learn(plan: &mut BuildPlan, found: Vec<((Digest, String), bool)>) -> Result<()> {
    for (place, has_files) in found {
        let record = key_of(&plan.facts, &place).map(|key| (key, PathRecord { has_files }));
        plan.facts.looked.extend(record);
        plan.facts.paths.insert(place, has_files);
    }
    let graph = Graph::new(plan.compiled.definition.clone()).and_then(|graph| mounted(graph, &plan.auto_mounts, &plan.facts));
    plan.graph = graph.map_err(|error| Error::build("failed to parse the frontend's build graph").because(&error))?;
    Ok(())
}

fn key_of(facts: &KnownFacts, (base, path): &(Digest, String)) -> Option<RecordKey<PathRecord>> {
    let layers = facts.images.get(base)?.as_ref().ok()?;
    Some(path_key(&ChainId::of_layers(layers)?, path))
}
