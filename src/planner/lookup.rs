//! Holds a plan against what the cache remembers.

use std::collections::{HashMap, HashSet};

use crate::cache::record_reader::RecordReader;
use crate::domain::{CopiedContentKey, StepKey};
use crate::error::Result;
use crate::graph::{Input, Key, Keys};
use crate::plan::{Plan, RecordKey, StepRecord, Verdict, copied_content_key, fits, layer_key, misfits, step_key};
use crate::planner::build_plan::BuildPlan;

/// Plans with all that is known by now.
pub async fn decide(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    let mut asked: HashSet<CopiedContentKey> = plan.facts.copied.keys().cloned().collect();
    plan.keys = loop {
        let keys = Keys::new(&plan.graph, &plan.facts);
        let open: Vec<CopiedContentKey> = keys.copy_sources().iter().filter_map(|copied| copied.key.clone()).collect();
        let open: Vec<CopiedContentKey> = open.into_iter().filter(|key| asked.insert(key.clone())).collect();
        if open.is_empty() {
            break keys;
        }
        let found = records.read(open, copied_content_key).await?;
        plan.facts.copied.extend(found.iter().map(|(key, record)| (key.clone(), record.content.clone())));
        plan.copied.extend(found);
    };
    // The result's own record first: where that is kept, nothing else is asked for.
    let wanted = Plan::wanted(&plan.graph, &plan.keys);
    // When everything ran is in the records of each.
    let first = if plan.since.is_some() { wanted.len() } else { usize::from(plan.result_key().is_some()).min(wanted.len()) };
    let (first, rest) = wanted.split_at(first);
    ask(plan, first, records).await?;
    plan.decision = plan.decide_by_found();
    // What is kept may not be usable, and then what lies below it is asked for too.
    if !plan.decision.unchanged {
        ask(plan, rest, records).await?;
        plan.decision = plan.decide_by_found();
    }
    plan.graph.run_anyway(plan.decision.old.keys());
    show(plan);
    Ok(())
}

/// Shows what was decided of each step (`--debug`).
fn show(plan: &BuildPlan) {
    let decision = &plan.decision;
    tracing::info!(unchanged = decision.unchanged, kept = decision.cached.len(), "planned");
    for op in plan.graph.below(plan.graph.result()) {
        match decision.verdicts.get(&op.digest) {
            Some(Verdict::Hit) => tracing::debug!(step = op.name, "is cached"),
            Some(Verdict::Miss) => tracing::debug!(step = op.name, "runs: the cache has no result of it"),
            Some(Verdict::Uncacheable(why)) => tracing::debug!(step = op.name, why, "runs: it has no key"),
            Some(Verdict::Skipped) => tracing::debug!(step = op.name, "is not needed"),
            None => {}
        }
    }
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

/// Plans again with sources that nothing is known of: what is built of them has no key.
pub async fn leave_sources_open(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    for tree in plan.facts.locals.values_mut() {
        *tree = Err("the build context keeps changing while hakobi reads it".to_owned());
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
