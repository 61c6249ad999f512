//! Records a planned build: compares the steps that ran with their keys, and writes layers before the records that name them.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::cache::fault::cache_fault;
use crate::domain::Digest;
use crate::error::Result;
use crate::executor::daemon_cache;
use crate::executor::execution::Execution;
use crate::executor::graph_errors::broken;
use crate::executor::outcome::{Maker, NewLayers};
use crate::executor::progress::SolveProgress;
use crate::graph::{Graph, Input, Stage};
use crate::handover::{Intake, PreparedImage};
use crate::plan::{CopiedContentRecord, Inputs, ProofRecord, StepRecord, Unsaved, proof_key};
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::Released;
use crate::push::RepositoryBlobs;
use crate::recorder::recording::{Evidence, Recorder};
use crate::recorder::states::{self, BuildRecord};
use crate::recorder::{chain, layers, observe, without_daemon};
use crate::registry::Source as _;
use crate::save::StageSaver;

/// Records a build that was executed. Returns what this build added to the cache. Returns `None` if there was nothing to record, or
/// the cache failed and the user was warned.
///
/// # Errors
/// If the cache fails and is required.
#[tracing::instrument(level = "info", skip_all)]
pub async fn record(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: SolveProgress,
    released: &Released,
    maker: Maker,
    inputs: &Inputs,
) -> Result<Option<RepositoryBlobs>> {
    let Execution { daemon, cache, ref records, .. } = *execution;
    let context = &daemon.context;
    if let Maker::EarlierBuild { is_as_recorded } = maker {
        without_daemon::record_reused(context, plan, cache, released, is_as_recorded).await?;
    }
    let by_daemon = matches!(maker, Maker::Daemon | Maker::Both) && !plan.decision.unchanged;
    let (assembled, is_assembled) = match maker {
        Maker::Hakobi(new) => (new, true),
        _ => (NewLayers::default(), false),
    };
    let has_solved = !progress.solved.is_empty();
    if daemon.cache_target().is_none() || !(has_solved || is_assembled || by_daemon || plan.is_new_form) {
        return Ok(None);
    }
    let recorded = match has_solved || by_daemon {
        false => without_daemon::record_assembled(context, plan, cache, released, assembled, inputs).await,
        true => record_run(&Recorder { execution, plan }, progress, released, inputs, assembled).await,
    };
    match recorded {
        Ok(saved) => Ok(Some(saved)),
        Err(error) => records.faults.warn_unsaved(&error).map(|()| None),
    }
}

/// Saves the layers of the steps that ran, and records their states. `assembled` has the layers that hakobi made without the
/// daemon.
async fn record_run(
    recorder: &Recorder<'_>,
    mut progress: SolveProgress,
    released: &Released,
    inputs: &Inputs,
    assembled: NewLayers,
) -> Result<RepositoryBlobs> {
    let faulty = cache_fault::<crate::store::Error>;
    recorder.execution.cache.begin().await.map_err(faulty)?;
    let mut saved = released.saved().await?;
    let [image] = &released.images[..] else { return Ok(saved) };
    if progress.ran_again {
        recorder.execution.daemon.context.events.note("not saving this build: a step ran twice");
        return Ok(saved);
    }
    let step = recorder.execution.daemon.context.events.step("[hakobi] saving the cache");
    let done = async {
        let (stages, layers, intake) = stages(recorder, &progress, released).await?;
        saved.pushed += layers.pushed;
        saved.bytes += layers.bytes;
        let observed = observe::observe(recorder, &mut progress, &stages).await?;
        let keys = &observed.keys;
        let mut records =
            without_daemon::checked(&recorder.execution.daemon.context, recorder.plan, recorder.execution.cache, assembled)
                .await?;
        let intakes: Vec<&Intake> = std::iter::once(released.release.intake()).chain(&intake).collect();
        let seen = Evidence { progress: &progress, keys, intakes: &intakes, trees: Mutex::default() };
        let indexes = layers::index(recorder, image, &seen).await?;
        let mut proofs = chain::chain(recorder, recorder.plan.graph.result(), image, &seen, &indexes, &mut records).await?;
        for (state, image) in &stages {
            proofs.extend(chain::chain(recorder, state, image, &seen, &indexes, &mut records).await?);
        }
        let record = |state: &Input| records.get(state).or_else(|| recorder.plan.decision.cached.get(state));
        let copied = observed.copied.into_iter().map(|(key, (content, state))| {
            let chain = record(&state).and_then(StepRecord::chain);
            (key, CopiedContentRecord { content, chain })
        });
        let copied: Vec<_> = copied.collect();
        let daemon_states =
            daemon_cache::states_made_by_daemon(recorder.execution, recorder.plan, &progress, keys, records.keys()).await?;
        let inputs = &inputs.with_unsaved(&recorder.plan.graph, |step| unsaved(recorder, step, &progress, &records));
        let build = BuildRecord { plan: recorder.plan, cache: recorder.execution.cache, keys, image, inputs };
        let store = recorder.execution.cache.records();
        states::write_build(&recorder.execution.daemon.context, &build, records, copied).await?;
        let daemon_states =
            daemon_states.map(|record| (recorder.execution.cache.daemon_key(&recorder.execution.daemon.info.id), record));
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

/// Saves the side stages that ran. Returns their images by their states in the whole graph, the blobs that are new in the store,
/// and the intake that received them.
///
/// # Errors
/// If the daemon cannot hand over a stage.
pub async fn stages(
    recorder: &Recorder<'_>,
    progress: &SolveProgress,
    released: &Released,
) -> Result<(Vec<(Input, PreparedImage)>, RepositoryBlobs, Option<Intake>)> {
    let all: Vec<Stage> = recorder.plan.graph.side_stages();
    let ran = |stage: &&Stage| stage.steps.iter().any(|step| progress.ran.contains(&step.digest));
    let new: Vec<&Stage> = all.iter().filter(ran).collect();
    let (Some(to), false) = (recorder.execution.cache.target(), new.is_empty()) else { return Ok(Default::default()) };
    let intake = released.release.intake_for(&to, &[], &released.images).await?;
    if let Some(own) = recorder.execution.cache.own() {
        let known = recorder.plan.decision.cached.values();
        intake.intake.learn(|all| {
            for record in known {
                all.add_layers(&record.blobs(), &record.diff_ids(), own.repository());
            }
            recorder.plan.bases.values().for_each(|base| all.add(base));
        });
    }
    let saver = StageSaver {
        docker: &recorder.execution.daemon.docker,
        buildkit: &recorder.execution.daemon.buildkit,
        session: recorder.execution.session,
        endpoint: &intake.endpoint,
        intake: &intake.intake,
        entitlements: recorder.execution.daemon.context.build.entitlements.clone(),
        platform: released.images[0].platform.clone(),
        exit: recorder.execution.daemon.transport.exit(&recorder.execution.daemon.info, false),
    };
    let mut out = Vec::new();
    for (place, stage) in new.into_iter().enumerate() {
        let rewritten = progress.rewritten(recorder.plan, &stage.state);
        let graph = rewritten.and_then(|rewritten| Graph::new(rewritten.definition)).map_err(|error| broken(&error))?;
        let renamed = Stage { state: graph.result().clone(), ..stage.clone() };
        out.push((stage.state.clone(), saver.save(&graph, &renamed, place).await?));
    }
    let saved = intake.pusher.finish_blobs().await?.total();
    Ok((out, saved, Some(intake.intake.clone())))
}

/// Returns why there is no record of a step that the daemon solved, or `None` if there is one.
fn unsaved(
    recorder: &Recorder<'_>,
    step: &Digest,
    progress: &SolveProgress,
    records: &HashMap<Input, StepRecord>,
) -> Option<Unsaved> {
    let cached = &recorder.plan.decision.cached;
    if !progress.solved.contains(step) || records.keys().chain(cached.keys()).any(|state| state.step == *step) {
        return None;
    }
    Some(if progress.ran.contains(step) { Unsaved::Other } else { Unsaved::InDaemon })
}
