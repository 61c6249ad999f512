//! Builds by plan, and plans again if the sources changed.

use std::collections::HashMap;
use std::time::Instant;

use crate::build::Input;
use crate::cache::record_reader::RecordReader;
use crate::commands::{explain, mounts, outcome};
use crate::domain::Hasher;
use crate::engine::buildkit::{Outputs, Session};
use crate::error::Result;
use crate::executor::execution::{Execution, Halt};
use crate::executor::outcome::{Maker, Outcome};
use crate::executor::progress::SolveProgress;
use crate::executor::{base_paths, daemon_cache, load_images, run, verify};
use crate::output::{StrategyUsed, Tier};
use crate::plan::Inputs;
use crate::planner::build_plan::BuildPlan;
use crate::planner::compiled_key::{self, CompiledKey};
use crate::planner::local_sources::{self, PLANS};
use crate::planner::recall::DaemonlessPlan;
use crate::planner::{compile, lookup, replan};
use crate::recorder::mounts::UsedMounts;
use crate::recorder::record;
use crate::run::built::Built;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;
use crate::run::transport::LayerTransport;

/// The values that a planned build starts with.
pub struct Start<'a> {
    pub options: &'a HashMap<String, String>,
    pub imports: &'a CacheImports,
    pub sinks: &'a Outputs,
    pub began: Instant,
}

/// Builds by plan, and plans again if the sources changed. Returns the session if there is no plan, and `None` if the build is
/// done.
///
/// # Errors
/// If the build fails.
pub async fn build_by_plan(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    input: &mut Input,
    mut ahead: DaemonlessPlan,
    start: Start<'_>,
) -> Result<Option<Session>> {
    // hakobi cannot send a context from stdin twice.
    let mut plans = if daemon.context.is_repeatable() { PLANS } else { 0 };
    loop {
        let key = ahead.key().filter(|_| plans > 0);
        let shared_key = shared_key(input, key, plans > 0);
        let session = daemon.session(input, start.sinks, Some(shared_key)).await?;
        if let Some(key) = key {
            session.expect_files(key.files());
        }
        let error = match Box::pin(by_one_plan(daemon, built, input, ahead, &session, &start, plans > 0)).await {
            Ok(true) => return Ok(None),
            Ok(false) => {
                session.expect_nothing();
                return Ok(Some(session));
            }
            Err(error) => error,
        };
        let Some(difference) = session.moved().filter(|_| plans > 0) else { return Err(error) };
        plans -= 1;
        local_sources::warn_moved(&daemon.context, &difference, plans);
        ahead = DaemonlessPlan::Nothing(compiled_key::compiled_by(&daemon.context, input, &daemon.info.platform));
    }
}

/// Builds by one plan. Returns whether there was a plan.
///
/// # Errors
/// If the build fails.
pub async fn by_one_plan(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    input: &Input,
    ahead: DaemonlessPlan,
    session: &Session,
    start: &Start<'_>,
    is_checked: bool,
) -> Result<bool> {
    let Some((cache, faults)) = daemon.context.cache.usable() else { return Ok(false) };
    let Some(mut plan) = compile::compile_and_plan(daemon, session, start.options, input, ahead).await? else {
        return Ok(false);
    };
    if daemon.transport != LayerTransport::Registry && !plan.knows_bases() {
        return Ok(false);
    }
    let records = RecordReader::new(cache, faults);
    if is_checked {
        session.expect_trees(plan.expected());
    } else {
        lookup::leave_sources_open(&mut plan, &records).await?;
    }
    let execution = Execution { daemon, cache, records, session, sinks: start.sinks, imports: start.imports };
    let done = Box::pin(run_planned(&execution, built, plan, start.began)).await;
    load_images::unload(daemon).await;
    done.map(|()| true)
}

/// Returns the key of the daemon's copies of local directories. The daemon considers a file of the same size and time unchanged. So
/// the key depends on the Dockerfile's content: the daemon must not use an older Dockerfile.
pub fn shared_key(input: &Input, key: Option<&CompiledKey>, is_checked: bool) -> String {
    if !is_checked {
        return format!("{} {:032x}", input.shared_key, rand::random::<u128>());
    }
    let Some(key) = key else { return input.shared_key.clone() };
    let mut hasher = Hasher::default();
    for content in key.files().iter().map(|file| &file.content) {
        let content = content.as_ref().map_or_else(|| "None".to_owned(), |digest| format!("Some({digest})"));
        hasher.update(format!("{content}\n").as_bytes());
    }
    format!("{} {}", input.shared_key, hasher.digest())
}

/// Executes a plan, and each plan that follows from it, until there is an image. Then records and reports the image.
///
/// # Errors
/// If the build fails.
async fn run_planned(execution: &Execution<'_>, built: &mut Built, mut plan: BuildPlan, began: Instant) -> Result<()> {
    let Execution { daemon, cache, ref records, .. } = *execution;
    let context = &daemon.context;
    built.report.strategy = StrategyUsed::Auto;
    built.report.seconds.plan = began.elapsed().as_secs_f64();
    let mut progress = SolveProgress::default();
    // hakobi saves base images while the daemon pulls them.
    if daemon.cache_target().is_some()
        && let Err(error) = cache.begin().await
    {
        records.faults.warn_unsaved(&error)?;
    }
    plan.daemon_states = daemon_cache::daemon_states(execution, &plan).await?;
    base_paths::look(execution, &mut plan, &mut progress).await?;
    built.places = plan.graph.places();
    let mut inputs = Inputs::new(&plan.graph, &plan.keys, &plan.facts, context.events.hidden());
    let mut before = None;
    let Outcome { released, maker, id, solved } = loop {
        // A reused image needs no explanation, unless the reuse fails.
        if before.is_none() && !(plan.decision.unchanged && context.is_only_pushed()) {
            before = Some(records.one(&cache.inputs_key()).await?);
            explain::explain(context, built, &plan, before.as_ref().and_then(Option::as_ref), &inputs);
        }
        match Box::pin(run::run(execution, &plan, &mut progress)).await {
            Ok(outcome) => break outcome,
            Err(Halt::Failed(error)) => {
                let mut used = UsedMounts::open(&plan, &progress);
                if context.build.mounts.save_failed {
                    used.save(execution, &plan).await?;
                }
                built.report.mounts = mounts::used(&used);
                return Err(error);
            }
            Err(Halt::Replan(why)) => {
                progress.replanned(&why, context.events);
                replan::replan(&mut plan, why, records).await?;
            }
        }
    };
    if before.is_none() {
        explain::explain(context, built, &plan, None, &Inputs::default());
    }
    built.tier = tier(&maker, &plan, &progress);
    add_findings(built, &progress);
    if let Maker::Hakobi(_) = &maker {
        explain::show_assembled(context, &plan);
    }
    explain::show_hits(context, &plan);
    let verified = match &released {
        Some(released) if context.build.verify && matches!(maker, Maker::Hakobi(_) | Maker::Both) => {
            verify::verify(execution, &plan, &progress, released).await
        }
        _ => Ok(()),
    };
    built.report.bytes.context = execution.session.bytes_sent();
    if before.is_none() && plan.is_new_form {
        before = Some(records.one(&cache.inputs_key()).await?);
    }
    let before = before.flatten();
    crate::plan::measure(&mut inputs, &plan.graph, &progress.seconds, before.as_ref());
    explain::advise(context, built, &plan, &progress.ran, before.as_ref(), &inputs);
    built.ran_all = progress.ran_all(&plan.graph);
    built.ran_commands = progress.ran_commands(&plan.graph);
    let mut used = UsedMounts::find(&plan, &progress);
    let at = Instant::now();
    if let Some(released) = released.as_deref()
        && let Some(saved) = Box::pin(record::record(execution, &plan, progress, released, maker, &inputs)).await?
    {
        built.saved(saved.pushed, saved.bytes, at.elapsed());
    }
    used.save(execution, &plan).await?;
    built.report.mounts = mounts::used(&used);
    let released = released.map(|released| *released);
    outcome::finish(context, built, &plan, id, solved, released, Some(&daemon.info))?;
    verified
}

/// Adds the findings of the execution to the report.
fn add_findings(built: &mut Built, progress: &SolveProgress) {
    built.report.seconds.build += progress.spent.build;
    built.report.seconds.push += progress.spent.push;
    let findings = &progress.findings;
    findings.not_appended.iter().for_each(|(step, why)| built.not_appended(step, why));
    findings.names.iter().for_each(|(name, step)| built.also_named(name, step));
    built.places.extend(findings.places.clone());
}

/// Returns the tier of the image, by who made it and what ran. Returns `None` if the steps decide it.
fn tier(maker: &Maker, plan: &BuildPlan, progress: &SolveProgress) -> Option<Tier> {
    match maker {
        Maker::Hakobi(_) => Some(Tier::Append),
        Maker::Both => (!progress.ran_commands(&plan.graph)).then_some(Tier::Append),
        Maker::EarlierBuild { .. } => (!progress.ran_steps(&plan.graph)).then_some(Tier::Unchanged),
        Maker::Daemon => (plan.decision.unchanged && !progress.ran_steps(&plan.graph)).then_some(Tier::Unchanged),
    }
}
