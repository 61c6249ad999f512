//! After a planned build: what ran is checked against what was keyed, and remembered, layers before what names them.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::cache::fault::cache_fault;
use crate::domain::Digest;
use crate::error::Result;
use crate::executor::assembled::NewLayers;
use crate::executor::daemon_cache;
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::graph::{Graph, Input, Stage};
use crate::handover::{Intake, PreparedImage};
use crate::plan::{CopiedContentRecord, Inputs, ProofRecord, StepRecord, Unsaved, proof_key};
use crate::publish::release::Released;
use crate::push::RepositoryBlobs;
use crate::recorder::recording::{Proved, Recorder};
use crate::recorder::states::{self, BuildRecord};
use crate::recorder::{chain, layers, look, without_daemon};
use crate::registry::Source as _;
use crate::save::StageSaver;

/// Brings the layers of what ran into the store, and records what they are; `assembled` is what was made without the daemon.
pub async fn record(
    recorder: &Recorder<'_>,
    mut progress: SolveProgress,
    released: &Released,
    inputs: &Inputs,
    assembled: NewLayers,
) -> Result<RepositoryBlobs> {
    let faulty = cache_fault::<crate::store::Error>;
    recorder.cache.begin().await.map_err(faulty)?;
    let mut saved = released.kept().await?;
    let [image] = &released.images[..] else { return Ok(saved) };
    if progress.ran_again {
        recorder.run.context.events.note("nothing is remembered of this build: a step ran twice in it");
        return Ok(saved);
    }
    let step = recorder.run.context.events.step("[hakobi] saving the cache");
    let done = async {
        let (stages, layers, intake) = stages(recorder, &progress, released).await?;
        saved.pushed += layers.pushed;
        saved.bytes += layers.bytes;
        let looked = look::look(recorder, &mut progress, &stages).await?;
        let keys = &looked.keys;
        let mut records = without_daemon::checked(&recorder.run.context, recorder.plan, recorder.cache, assembled).await?;
        let intakes: Vec<&Intake> = std::iter::once(released.release.intake()).chain(&intake).collect();
        let seen = Proved { progress: &progress, keys, intakes: &intakes, trees: Mutex::default() };
        let indexes = layers::index(recorder, image, &seen).await?;
        let mut proofs = chain::chain(recorder, recorder.plan.graph.result(), image, &seen, &indexes, &mut records).await?;
        for (state, image) in &stages {
            proofs.extend(chain::chain(recorder, state, image, &seen, &indexes, &mut records).await?);
        }
        let record = |state: &Input| records.get(state).or_else(|| recorder.plan.decision.kept.get(state));
        let taken = looked.taken.into_iter().map(|(key, (content, state))| {
            let chain = record(&state).and_then(StepRecord::chain);
            (key, CopiedContentRecord { content, chain })
        });
        let taken: Vec<_> = taken.collect();
        let daemon_states =
            daemon_cache::made_here(recorder.run, recorder.plan, &progress, keys, records.keys(), recorder.work).await?;
        let inputs = &inputs.with_unsaved(&recorder.plan.graph, |step| unsaved(recorder, step, &progress, &records));
        let build = BuildRecord { plan: recorder.plan, cache: recorder.cache, keys, image, inputs };
        let store = recorder.cache.records();
        states::remember(&recorder.run.context, &build, records, taken).await?;
        let daemon_states = daemon_states.map(|record| (recorder.cache.daemon_key(&recorder.run.info.id), record));
        store.write(daemon_states).await.map_err(faulty)?;
        store.write(proofs.into_iter().map(|operation| (proof_key(&operation), ProofRecord {}))).await.map_err(faulty)?;
        Ok(saved)
    };
    let done: Result<RepositoryBlobs> = Box::pin(done).await;
    match &done {
        Ok(_) => step.done(),
        Err(error) => step.failed(error),
    }
    done
}

/// The stages beside the final one that ran, by their states in the whole graph; what of them was new in the store; and what
/// took them.
pub async fn stages(
    recorder: &Recorder<'_>,
    progress: &SolveProgress,
    released: &Released,
) -> Result<(Vec<(Input, PreparedImage)>, RepositoryBlobs, Option<Intake>)> {
    let all: Vec<Stage> = recorder.plan.graph.side_stages();
    let ran = |stage: &&Stage| stage.steps.iter().any(|step| progress.ran.contains(&step.digest));
    let new: Vec<&Stage> = all.iter().filter(ran).collect();
    let (Some(to), false) = (recorder.cache.target(), new.is_empty()) else { return Ok(Default::default()) };
    let intake = released.release.intake_for(&to, &[], &released.images).await?;
    if let Some(own) = recorder.cache.own() {
        let known = recorder.plan.decision.kept.values();
        intake.intake.learn(|all| {
            for record in known {
                all.add_layers(&record.blobs(), &record.diff_ids(), own.repository());
            }
            recorder.plan.bases.values().for_each(|base| all.add(base));
        });
    }
    let saver = StageSaver {
        docker: &recorder.run.docker,
        buildkit: &recorder.run.buildkit,
        session: recorder.work.session,
        endpoint: &intake.endpoint,
        intake: &intake.intake,
        entitlements: recorder.run.context.build.entitlements.clone(),
        platform: released.images[0].platform.clone(),
        exit: recorder.run.way.exit(&recorder.run.info, false),
    };
    let mut out = Vec::new();
    for (place, stage) in new.into_iter().enumerate() {
        let rewritten = recorder.plan.graph.grafted(&stage.state, &progress.substitutions, &progress.given);
        let graph = rewritten.and_then(|rewritten| Graph::new(rewritten.definition)).map_err(|error| broken(&error))?;
        let renamed = Stage { state: graph.result().clone(), ..stage.clone() };
        out.push((stage.state.clone(), saver.save(&graph, &renamed, place).await?));
    }
    let saved = intake.pusher.finish_blobs().await?.total();
    Ok((out, saved, Some(intake.intake.clone())))
}

/// Why there is no record of a step that the daemon went through.
fn unsaved(
    recorder: &Recorder<'_>,
    step: &Digest,
    progress: &SolveProgress,
    records: &HashMap<Input, StepRecord>,
) -> Option<Unsaved> {
    let kept = &recorder.plan.decision.kept;
    if !progress.given.contains(step) || records.keys().chain(kept.keys()).any(|state| state.step == *step) {
        return None;
    }
    Some(if progress.ran.contains(step) { Unsaved::Other } else { Unsaved::InDaemon })
}
