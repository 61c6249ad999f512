//! Holds a plan against what the cache remembers.

use std::collections::{HashMap, HashSet};

use crate::cache::fault::cache_fault;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::{CopiedContentKey, Digest, StepKey};
use crate::endpoint::CacheRepository;
use crate::error::Result;
use crate::graph::{Input, Key, Keys};
use crate::plan::{Plan, RecordKey, StepRecord, copied_content_key, fits, layer_key, misfits, step_key};
use crate::planner::build_plan::BuildPlan;
use crate::registry::Home as _;

/// Plans with all that is known by now.
pub async fn decide(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    let mut asked: HashSet<CopiedContentKey> = plan.facts.taken.keys().cloned().collect();
    plan.keys = loop {
        let keys = Keys::of(&plan.graph, &plan.facts);
        let open: Vec<CopiedContentKey> = keys.taken().iter().filter_map(|taken| taken.key.clone()).collect();
        let open: Vec<CopiedContentKey> = open.into_iter().filter(|key| asked.insert(key.clone())).collect();
        if open.is_empty() {
            break keys;
        }
        let found = records.read(open, copied_content_key).await?;
        plan.facts.taken.extend(found.iter().map(|(key, record)| (key.clone(), record.content.clone())));
        plan.taken.extend(found);
    };
    // The result's own record first: where that is kept, nothing else is asked for.
    let wanted = Plan::wanted(&plan.graph, &plan.keys);
    // When everything ran is in the records of each.
    let first = if plan.since.is_some() { wanted.len() } else { usize::from(plan.result_key().is_some()).min(wanted.len()) };
    let (first, rest) = wanted.split_at(first);
    ask(plan, first, records).await?;
    plan.decision = plan.of_found();
    // What is kept may not be usable, and then what lies below it is asked for too.
    if !plan.decision.unchanged {
        ask(plan, rest, records).await?;
        plan.decision = plan.of_found();
    }
    plan.graph.run_anyway(plan.decision.old.keys());
    Ok(())
}

pub async fn ask(plan: &mut BuildPlan, keys: &[StepKey], records: &RecordReader<'_>) -> Result<()> {
    let new: Vec<StepKey> = keys.iter().filter(|key| !plan.found.contains_key(key)).cloned().collect();
    let mut found = records.read(new.iter().cloned(), step_key).await?;
    let mut wrong = misfits(&plan.graph, &plan.keys, &plan.facts, &found);
    wrong.extend(found.iter().filter(|(_, record)| !plan.agrees(record)).map(|(key, _)| key.clone()));
    wrong.extend(unseen(&found, records).await?);
    for key in wrong {
        records.refuse(&step_key(&key));
        found.remove(&key);
    }
    plan.found.extend(new.into_iter().map(|key| {
        let record = found.remove(&key);
        (key, record)
    }));
    Ok(())
}

/// The record of a state, if it fits what is known of the graph.
pub async fn record_of(plan: &BuildPlan, state: &Input, records: &RecordReader<'_>) -> Result<Option<StepRecord>> {
    let Key::Known(key) = plan.keys.state(state) else { return Ok(None) };
    let Some(record) = records.one(&step_key(&key)).await? else { return Ok(None) };
    if fits(&plan.graph, &plan.facts, state, &record) && plan.agrees(&record) {
        let found = HashMap::from([(key.clone(), record)]);
        if unseen(&found, records).await?.is_empty() {
            return Ok(found.into_values().next());
        }
    }
    records.refuse(&step_key(&key));
    Ok(None)
}

/// Plans anew without what the store has lost layers of; tells whether that was anything.
pub async fn forget_lost(plan: &mut BuildPlan, cache: &CacheSession, records: &RecordReader<'_>) -> Result<bool> {
    let Some(own) = cache.own() else { return Ok(false) };
    let mut lost = forget_lost_bases(plan, own).await?;
    loop {
        let there = layers_there(own, plan.decision.kept.values()).await?;
        for (state, record) in &plan.decision.kept {
            // One of the two is not right. Whichever it is, neither is used.
            if let (true, Key::Known(key)) = (is_of_other_sizes(record, &there), plan.keys.state(state)) {
                records.refuse(&step_key(&key));
            }
        }
        let gone: Vec<StepKey> = plan
            .decision
            .kept
            .iter()
            .filter(|(_, record)| !is_whole(record, &there))
            .filter_map(|(state, _)| match plan.keys.state(state) {
                Key::Known(key) => Some(key),
                _ => None,
            })
            .collect();
        if gone.is_empty() {
            return Ok(lost);
        }
        lost = true;
        for key in gone {
            plan.found.insert(key, None);
        }
        plan.decision = plan.of_found();
    }
}

/// Takes the base images to be what they were when they were kept.
pub async fn take_recorded_bases(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    let sources = plan.graph.below(plan.graph.result()).into_iter().filter(|op| op.image().is_some());
    let states = sources.map(|op| Input { step: op.digest.clone(), output: 0 });
    let states: Vec<Input> = states.collect();
    let mut bases = HashMap::new();
    for state in states {
        if let Some(record) = record_of(plan, &state, records).await? {
            bases.insert(state, record);
        }
    }
    plan.recorded_bases = Some(bases);
    Ok(())
}

/// Leaves recorded bases to their registries of which the store has lost layers.
pub async fn forget_lost_bases(plan: &mut BuildPlan, own: &CacheRepository) -> Result<bool> {
    let Some(bases) = &mut plan.recorded_bases else { return Ok(false) };
    let there = layers_there(own, bases.values()).await?;
    let before = bases.len();
    bases.retain(|_, record| is_whole(record, &there));
    Ok(bases.len() < before)
}

/// Plans anew with sources that nothing is known of: what is built of them has no key.
pub async fn leave_sources_open(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    for tree in plan.facts.locals.values_mut() {
        *tree = Err("the build context changes while it is read".to_owned());
    }
    plan.compiled_by = None;
    decide(plan, records).await
}

/// The keys of records with a layer that nobody saw to be what it is said to be.
pub async fn unseen(found: &HashMap<StepKey, StepRecord>, records: &RecordReader<'_>) -> Result<Vec<StepKey>> {
    let layers: HashSet<_> = found.values().flat_map(|record| &record.layers).map(layer_key).collect();
    let seen = records.read(layers, RecordKey::clone).await?;
    let is_seen = |record: &StepRecord| record.layers.iter().all(|layer| seen.contains_key(&layer_key(layer)));
    Ok(found.iter().filter(|(_, record)| !is_seen(record)).map(|(key, _)| key.clone()).collect())
}

/// The layers of these records that the store has, with their sizes.
pub async fn layers_there<'a>(
    own: &CacheRepository,
    records: impl Iterator<Item = &'a StepRecord>,
) -> Result<HashMap<Digest, u64>> {
    let layers: HashSet<Digest> = records.flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
    let layers: Vec<Digest> = layers.into_iter().collect();
    own.sizes(&layers).await.map_err(cache_fault)
}

/// Whether the store has all layers of a record.
pub fn is_whole(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().all(|layer| there.get(&layer.blob.digest) == Some(&layer.blob.size))
}

/// Whether the store has a layer of a record that is larger or smaller than that says.
pub fn is_of_other_sizes(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().any(|layer| there.get(&layer.blob.digest).is_some_and(|size| *size != layer.blob.size))
}
