//! Makes the image of a plan, in the cheapest way that is possible.

use std::time::Instant;

use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::executor::assemble::Assembled;
use crate::executor::execution::{Execution, Halt, OrHalt, context_changed};
use crate::executor::outcome::{Maker, Outcome};
use crate::executor::progress::SolveProgress;
use crate::executor::{assemble, partial, reuse, rounds, skeleton};
use crate::planner::build_plan::BuildPlan;
use crate::planner::lost_layers;
use crate::planner::replan::Replan;
use crate::run::context::BuildContext;

/// Makes the image of a plan.
///
/// # Errors
/// [`Halt::Replan`] if the plan does not hold; [`Halt::Failed`] if the build fails.
#[tracing::instrument(name = "execute", level = "info", skip_all)]
pub async fn run(execution: &Execution<'_>, plan: &BuildPlan, progress: &mut SolveProgress) -> OrHalt<Outcome> {
    let context = &execution.daemon.context;
    if let Some(outcome) = reuse::put(context, plan, execution.cache, &execution.records).await? {
        return Ok(outcome);
    }
    has_layers(execution, plan).await?;
    let at = Instant::now();
    let observed = rounds::observe(execution, plan, progress).await;
    progress.spent.build += at.elapsed().as_secs_f64();
    if let Some(contents) = observed? {
        return Err(Replan::Observed(contents).into());
    }
    // If hakobi could not hash the files, it does not know which files the steps copy.
    if plan.knows_sources() {
        match assemble::assemble(context, plan, execution.cache, &execution.records).await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(_)) => {}
            Err(Halt::Replan(Replan::SourcesMoved(difference))) => {
                execution.session.note_moved(&difference);
                return Err(context_changed(&difference).into());
            }
            Err(halt) => return Err(halt),
        }
        if let Some(released) = skeleton::append(execution, plan, progress).await? {
            return Ok(Outcome::pushed(released, Maker::Both));
        }
    }
    partial::finish(execution, plan, progress).await
}

/// Makes the image of a plan without a daemon. Returns the reason if that is not possible; the reason is `None` if a command must
/// run.
///
/// # Errors
/// [`Halt::Replan`] if the plan does not hold; [`Halt::Failed`] if the build fails.
#[tracing::instrument(name = "execute", level = "info", skip_all)]
pub async fn without_daemon(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> OrHalt<Assembled> {
    if let Some(outcome) = reuse::put(context, plan, cache, records).await? {
        return Ok(Ok(outcome));
    }
    // `--verify`: the daemon must check the layers.
    if context.build.verify {
        return Ok(Err(None));
    }
    assemble::assemble(context, plan, cache, records).await
}

/// Asks the cache for the layers that the daemon would pull. A daemon that made them itself pulls none.
async fn has_layers(execution: &Execution<'_>, plan: &BuildPlan) -> OrHalt<()> {
    if plan.daemon_has_all() {
        return Ok(());
    }
    match lost_layers::lost_layers(plan, execution.cache, &execution.records).await {
        Ok(None) => Ok(()),
        Ok(Some(lost)) => Err(Replan::LayersLost(lost).into()),
        Err(error) => {
            execution.records.give_up(&error)?;
            Err(Replan::CacheUnusable.into())
        }
    }
}
