//! Does the work that needs no daemon: the whole build, if the cache has the compiled Dockerfile and nothing has changed.

use std::time::Instant;

use crate::build::Input;
use crate::cache::record_reader::RecordReader;
use crate::commands::{explain, outcome};
use crate::engine::buildkit::SolveOutcome;
use crate::engine::{Docker, EngineInfo};
use crate::error::{Error, Result};
use crate::executor::execution::Halt;
use crate::executor::outcome::Maker;
use crate::executor::run;
use crate::graph;
use crate::output::{StrategyUsed, Tier};
use crate::plan::Inputs;
use crate::planner::local_sources::{self, PLANS};
use crate::planner::recall::{self, DaemonlessPlan};
use crate::planner::replan::{self, Replan};
use crate::recorder::without_daemon;
use crate::run::built::Built;
use crate::run::context::BuildContext;

/// Builds without a daemon as far as possible. Pushes the image if the cache has all of it and it is only pushed.
///
/// # Errors
/// If the push fails, or the cache fails and is required.
pub async fn ahead(
    context: &BuildContext<'_>,
    built: &mut Built,
    input: &Input,
    daemon: Option<(&Docker, &EngineInfo)>,
    began: Instant,
) -> Result<DaemonlessPlan> {
    let mut plans = PLANS;
    loop {
        plans -= 1;
        if let Some(ahead) = Box::pin(ahead_by_one_plan(context, built, input, daemon, began, plans)).await? {
            return Ok(ahead);
        }
    }
}

/// Builds by one plan. Returns `None` if the sources changed and hakobi may plan again.
///
/// # Errors
/// If the push fails, or the cache fails and is required.
pub async fn ahead_by_one_plan(
    context: &BuildContext<'_>,
    built: &mut Built,
    input: &Input,
    daemon: Option<(&Docker, &EngineInfo)>,
    began: Instant,
    plans: u32,
) -> Result<Option<DaemonlessPlan>> {
    let Some((cache, faults)) = context.cache.usable().filter(|_| context.plans(input)) else {
        return Ok(Some(DaemonlessPlan::Nothing(None)));
    };
    let records = RecordReader::new(cache, faults);
    let mut plan = match recall::remembered_plan(context, input, &records, daemon).await? {
        DaemonlessPlan::Open(plan) => plan,
        other => return Ok(Some(other)),
    };
    let outcome = match run::without_daemon(context, &plan, cache, &records).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => {
            plan.not_assembled = why;
            return Ok(Some(DaemonlessPlan::Open(plan)));
        }
        Err(Halt::Failed(error)) => return Err(error),
        Err(Halt::Replan(Replan::SourcesMoved(difference))) => {
            if plans > 0 {
                local_sources::warn_moved(context, &difference, plans);
                return Ok(None);
            }
            plan.not_assembled = Some(format!("the build context keeps changing while hakobi reads it ({difference})"));
            return Ok(Some(DaemonlessPlan::Open(plan)));
        }
        Err(Halt::Replan(why)) => {
            replan::replan(&mut plan, why, &records).await?;
            return Ok(Some(DaemonlessPlan::Open(plan)));
        }
    };
    let Some(released) = outcome.released else { return Ok(Some(DaemonlessPlan::Open(plan))) };
    if let Maker::Hakobi(new) = outcome.maker {
        let inputs = Inputs::new(&plan.graph, &plan.keys, &plan.facts, context.events.hidden());
        let before = records.one(&cache.inputs_key()).await?;
        explain::explain(context, built, &plan, before.as_ref(), &inputs);
        explain::show_assembled(context, &plan);
        built.tier = Some(Tier::Append);
        let at = Instant::now();
        match without_daemon::record_assembled(context, &plan, cache, &released, new, &inputs).await {
            Ok(saved) => built.saved(saved.pushed, saved.bytes, at.elapsed()),
            Err(error) => faults.warn_unsaved(&error)?,
        }
    } else {
        let is_as_recorded = matches!(outcome.maker, Maker::EarlierBuild { is_as_recorded: true });
        without_daemon::record_reused(context, &plan, cache, &released, is_as_recorded).await?;
        explain::explain(context, built, &plan, None, &Inputs::default());
        built.tier = Some(Tier::Unchanged);
    }
    built.report.strategy = StrategyUsed::Auto;
    built.report.seconds.plan = began.elapsed().as_secs_f64() - built.report.seconds.save;
    built.places = plan.graph.places();
    explain::show_hits(context, &plan);
    outcome::finish(context, built, &plan, String::new(), SolveOutcome::default(), Some(*released), None)?;
    Ok(Some(DaemonlessPlan::Done))
}

/// Returns the error of a build that requires a daemon which is not available.
pub async fn needs_daemon(context: &BuildContext<'_>, error: Error, ahead: &DaemonlessPlan, input: &Input) -> Error {
    const HINT: &str =
        "give the job a Docker daemon (privileged mode in CodeBuild), or run this build once on a machine that has one";
    let Some((cache, faults)) = context.cache.usable().filter(|_| context.plans(input)) else { return error };
    let plan = match ahead {
        DaemonlessPlan::Open(plan) => plan,
        DaemonlessPlan::Done => return error,
        DaemonlessPlan::Nothing(_) => {
            let what = "the cache has no build of this Dockerfile with these options and base images, and compiling it requires a Docker daemon";
            return Error::no_daemon(what).because(&error).hint(HINT);
        }
    };
    let now = Inputs::new(&plan.graph, &plan.keys, &plan.facts, context.events.hidden());
    let before = RecordReader::new(cache, faults).one(&cache.inputs_key()).await.ok().flatten();
    let reasons = crate::plan::explain(&plan.graph, &plan.decision, before.as_ref(), &now);
    let all = plan.graph.below(plan.graph.result()).into_iter();
    let mut open = all.filter(|op| plan.decision.runs(&op.digest));
    let what = match open.next() {
        Some(op) => {
            let why = reasons.get(&op.digest).map(|reason| format!(" ({reason})")).unwrap_or_default();
            let also = plan.not_assembled.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("`{}` must run{why}, which requires a Docker daemon{also}", graph::instruction_of(&op.name))
        }
        // `--load` and outputs require the daemon's copy of the image.
        None => "loading or exporting the image requires a Docker daemon".to_owned(),
    };
    Error::no_daemon(what).because(&error).hint(HINT)
}
