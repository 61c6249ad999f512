//! Builds by plan, and plans again if the sources moved.

use std::collections::HashMap;
use std::time::Instant;

use crate::build::Input;
use crate::cache::record_reader::RecordReader;
use crate::commands::{explain, outcome};
use crate::domain::Hasher;
use crate::engine::buildkit::{Outputs, Session, SolveOutcome};
use crate::error::{Error, Result};
use crate::executor::progress::SolveProgress;
use crate::executor::reuse::{self, ReuseOutcome};
use crate::executor::skeleton::{self, Appended};
use crate::executor::{daemon_cache, load_images, partial, rounds, verify};
use crate::plan::Inputs;
use crate::planner::build_plan::BuildPlan;
use crate::planner::compiled_key::{self, CompiledKey};
use crate::planner::local_sources::{self, PLANS};
use crate::planner::recall::DaemonlessPlan;
use crate::planner::{compile, lookup};
use crate::recorder::recording::Recorder;
use crate::recorder::{record, without_daemon};
use crate::report::{StrategyUsed, Tier};
use crate::run::built::Built;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;
use crate::run::transport::LayerTransport;
use crate::run::work::Work;

/// What a planned build begins with.
pub struct Start<'a> {
    pub options: &'a HashMap<String, String>,
    pub imports: &'a CacheImports,
    pub sinks: &'a Outputs,
    pub began: Instant,
}

/// Builds by plan, and plans again if the sources moved. Gives the session back where there is no plan to build by.
pub async fn build_by_plan(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    input: &mut Input,
    mut ahead: DaemonlessPlan,
    start: Start<'_>,
) -> Result<Option<Session>> {
    // A stream that was read cannot be sent again.
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
        local_sources::tell_moved(&daemon.context, &difference, plans);
        ahead = DaemonlessPlan::Nothing(compiled_key::compiled_by(&daemon.context, input, &daemon.info.platform));
    }
}

/// Tells whether there was a plan.
pub async fn by_one_plan(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    input: &Input,
    ahead: DaemonlessPlan,
    session: &Session,
    start: &Start<'_>,
    is_checked: bool,
) -> Result<bool> {
    let Some((cache, faults)) = daemon.context.cache.kept() else { return Ok(false) };
    let Some(mut plan) = compile::compile_and_plan(daemon, session, start.options, input, ahead).await? else {
        return Ok(false);
    };
    if daemon.way != LayerTransport::Registry && !plan.knows_bases() {
        return Ok(false);
    }
    if is_checked {
        session.expect_trees(plan.expected());
    } else {
        lookup::leave_sources_open(&mut plan, &RecordReader::of(cache, faults)).await?;
    }
    let work = Work { session, sinks: start.sinks, imports: start.imports };
    let done = Box::pin(run_planned(daemon, built, plan, work, start.began)).await;
    load_images::unload(daemon).await;
    done.map(|()| true)
}

/// What the daemon keeps its copies of local directories under. It takes a file of the same size and time for the same: an older
/// Dockerfile must not stand for the one that the key was made of.
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

/// Builds by plan.
pub async fn run_planned(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    mut plan: BuildPlan,
    work: Work<'_>,
    began: Instant,
) -> Result<()> {
    let context = &daemon.context;
    let Some((cache, faults)) = context.cache.kept() else { return Err(Error::build("there is no store to plan with")) };
    built.report.strategy = StrategyUsed::Auto;
    let records = RecordReader::of(cache, faults);
    built.report.seconds.plan = began.elapsed().as_secs_f64();
    built.places = plan.graph.places();
    let mut inputs = Inputs::of(&plan.graph, &plan.keys, &plan.facts, context.events.hidden());
    let mut progress = SolveProgress::default();
    // Base images are kept while the daemon pulls them.
    if daemon.keeps().is_some()
        && let Err(error) = cache.begin().await
    {
        faults.warn("failed to save this build to", &error)?;
    }
    plan.daemon_states = daemon_cache::daemon_states(daemon, &plan, cache, &records, &work).await?;
    let (mut before, mut assembled, mut laid) = (None, None, false);
    let released = loop {
        match reuse::put(context, &plan, cache, &records).await? {
            ReuseOutcome::Done(released, was_kept) => {
                without_daemon::remember_reused(context, &plan, cache, &released, was_kept).await?;
                if before.is_none() {
                    explain::explain(context, built, &plan, None, &Inputs::default());
                }
                let tier = (!progress.ran_steps(&plan.graph)).then_some(Tier::Unchanged);
                break Some((released, tier));
            }
            ReuseOutcome::Failed => plan.without_records(),
            ReuseOutcome::Open => {}
        }
        if before.is_none() {
            before = Some(records.one(&cache.inputs_key()).await?);
            explain::explain(context, built, &plan, before.as_ref().and_then(Option::as_ref), &inputs);
        }
        // Layers that are to come down have to be there; a daemon that made them itself asks for none.
        if !plan.is_there() {
            match lookup::forget_lost(&mut plan, cache, &records).await {
                Ok(false) => {}
                Ok(true) => context.events.note("the cache lost layers of what it remembers: that is made anew"),
                Err(error) => {
                    faults.give_up();
                    faults.warn("continuing without", &error)?;
                    plan.without_records();
                }
            }
        }
        let at = Instant::now();
        let looked = rounds::round(daemon, built, &mut plan, &mut progress, cache, &records, &work).await?;
        built.report.seconds.build += at.elapsed().as_secs_f64();
        if looked {
            continue;
        }
        match skeleton::append(daemon, built, &mut plan, &mut progress, cache, &records, &work).await? {
            Appended::Done(released) => {
                laid = true;
                let tier = (!progress.ran_commands(&plan.graph)).then_some(Tier::Append);
                break Some((released, tier));
            }
            Appended::Here(released, records) => {
                explain::show_assembled(context, &plan);
                (assembled, laid) = (Some(records), true);
                break Some((released, Some(Tier::Append)));
            }
            Appended::Again => {}
            Appended::No => break None,
        }
    };
    explain::show_hits(context, &plan);
    let (released, id, solved) = match released {
        Some((released, tier)) => {
            built.tier = tier;
            (Some(*released), String::new(), SolveOutcome::default())
        }
        None => {
            let done = partial::finish(daemon, built, &mut plan, &mut progress, cache, &work).await?;
            built.tier = (plan.decision.unchanged && !progress.ran_steps(&plan.graph)).then_some(Tier::Unchanged);
            done
        }
    };
    let verified = match &released {
        Some(released) if context.build.verify && laid => verify::verify(daemon, &plan, &progress, cache, &work, released).await,
        _ => Ok(()),
    };
    built.report.bytes.context = work.session.bytes_sent();
    if before.is_none() && plan.is_new_form {
        before = Some(records.one(&cache.inputs_key()).await?);
    }
    let before = before.flatten();
    crate::plan::measure(&mut inputs, &plan.graph, &progress.seconds, before.as_ref());
    explain::advise(context, built, &plan, &progress.ran, before.as_ref(), &inputs);
    built.ran_all = progress.ran_all(&plan.graph);
    let by_daemon = assembled.is_none() && !plan.decision.unchanged;
    let is_new = !progress.given.is_empty() || assembled.is_some() || by_daemon || plan.is_new_form;
    if let Some(released) = released.as_ref().filter(|_| daemon.keeps().is_some() && is_new) {
        let at = Instant::now();
        let recording = Recorder { run: daemon, work: &work, plan: &plan, cache };
        let assembled = assembled.unwrap_or_default();
        let recorded = match progress.given.is_empty() && !by_daemon {
            true => without_daemon::remember_assembled(context, &plan, cache, released, assembled, &inputs).await,
            false => Box::pin(record::record(&recording, progress, released, &inputs, assembled)).await,
        };
        match recorded {
            Ok(saved) => {
                built.report.layers.saved += saved.pushed;
                built.report.bytes.saved += saved.bytes;
            }
            Err(error) => faults.warn("failed to save this build to", &error)?,
        }
        built.report.seconds.save = at.elapsed().as_secs_f64();
    }
    outcome::end(context, built, &plan, id, solved, released, Some(&daemon.info))?;
    verified
}
