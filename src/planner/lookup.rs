//! Looks up a plan's steps in the cache.

use std::collections::{HashMap, HashSet};

use crate::cache::record_reader::RecordReader;
use crate::domain::{CopiedContentKey, Digest, StepKey};
use crate::error::Result;
use crate::graph::{Input, Key, Keys};
use crate::plan::{Plan, RecordKey, StepRecord, Verdict, copied_content_key, fits, layer_key, misfits, step_key};
use crate::planner::build_plan::BuildPlan;

/// Decides which steps run, with all facts that are known now.
///
/// # Errors
/// If the cache fails and is required.
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
    // Looks up the result's record first: if the cache has the result, nothing else is needed.
    let wanted = Plan::wanted(&plan.graph, &plan.keys);
    // Each record says when its step ran, so with `since` all records are needed.
    let first = if plan.since.is_some() { wanted.len() } else { usize::from(plan.result_key().is_some()).min(wanted.len()) };
    let (first, rest) = wanted.split_at(first);
    look_up(plan, first, records).await?;
    plan.decision = plan.decide_by_found();
    // The record may be unusable, and then hakobi looks up the states below it too.
    if !plan.decision.unchanged {
        look_up(plan, rest, records).await?;
        plan.decision = plan.decide_by_found();
        records.records.note_whole();
    }
    plan.graph.run_anyway(plan.decision.old.keys());
    copy_again(plan, records).await?;
    show(plan);
    Ok(())
}

/// Lets copies run again whose files a command with a carried cache mount sees. A cached layer has the times of the build that made it:
/// after a change and its reversal these would be older than what the command made of the change.
///
/// # Errors
/// If the cache fails and is required.
async fn copy_again(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    let mut again = HashSet::new();
    loop {
        let commands: Vec<Digest> = plan.open_mounts().into_iter().map(|(op, _)| op.digest.clone()).collect();
        let Some(key) = plan.mounts_key.clone().filter(|_| !commands.is_empty()) else { return Ok(()) };
        if plan.mounts.is_none() {
            plan.mounts = Some(records.one(&key).await?);
        }
        if !matches!(plan.mounts, Some(Some(_))) {
            return Ok(());
        }
        let copies = plan.graph.copies_below(&commands);
        let copies: Vec<Digest> = copies.into_iter().filter(|step| !plan.decision.runs(step)).collect();
        if copies.is_empty() {
            return Ok(());
        }
        plan.graph.run_anyway(&copies);
        again.extend(copies);
        plan.decision = Plan { copied_again: again.clone(), ..plan.decide_by_found() };
    }
}

/// Shows the decision on each step (`--debug`).
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

pub async fn look_up(plan: &mut BuildPlan, keys: &[StepKey], records: &RecordReader<'_>) -> Result<()> {
    let new: Vec<StepKey> = keys.iter().filter(|key| !plan.found.contains_key(key)).cloned().collect();
    let mut found = records.read(new.iter().cloned(), step_key).await?;
    let mut wrong = misfits(&plan.graph, &plan.keys, &plan.facts, &found);
    wrong.extend(found.iter().filter(|(_, record)| !plan.agrees(record)).map(|(key, _)| key.clone()));
    wrong.extend(unverified(&found, records).await?);
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

/// Reads the record of a state. Returns `None` if there is none, or it does not fit the plan.
///
/// # Errors
/// If the cache fails and is required.
pub async fn record_of(plan: &BuildPlan, state: &Input, records: &RecordReader<'_>) -> Result<Option<StepRecord>> {
    let Key::Known(key) = plan.keys.state(state) else { return Ok(None) };
    let Some(record) = records.one(&step_key(&key)).await? else { return Ok(None) };
    if fits(&plan.graph, &plan.facts, state, &record) && plan.agrees(&record) {
        let found = HashMap::from([(key.clone(), record)]);
        if unverified(&found, records).await?.is_empty() {
            return Ok(found.into_values().next());
        }
    }
    records.refuse(&step_key(&key));
    Ok(None)
}

/// Assumes that the base images are those of the records.
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

/// Decides again without the files of local sources: steps that copy them have no key.
pub async fn leave_sources_open(plan: &mut BuildPlan, records: &RecordReader<'_>) -> Result<()> {
    for tree in plan.facts.locals.values_mut() {
        *tree = Err("the build context keeps changing while hakobi reads it".to_owned());
    }
    plan.compiled_by = None;
    decide(plan, records).await
}

/// Returns the keys of records with an unverified layer: nobody has checked that the blob has the recorded diff ID.
pub async fn unverified(found: &HashMap<StepKey, StepRecord>, records: &RecordReader<'_>) -> Result<Vec<StepKey>> {
    let layers: HashSet<_> = found.values().flat_map(|record| &record.layers).map(layer_key).collect();
    let seen = records.read(layers, RecordKey::clone).await?;
    let is_seen = |record: &StepRecord| record.layers.iter().all(|layer| seen.contains_key(&layer_key(layer)));
    Ok(found.iter().filter(|(_, record)| !is_seen(record)).map(|(key, _)| key.clone()).collect())
}
