//! Solves the open steps with the daemon, on cached layers, and releases the image.

use std::time::Instant;

use crate::engine::buildkit::{Gateway, SolveOutcome, Solved};
use crate::error::Error;
use crate::executor::execution::{Execution, OrHalt};
use crate::executor::graph_errors::broken;
use crate::executor::outcome::{Maker, Outcome};
use crate::executor::progress::SolveProgress;
use crate::executor::{mounts, request, solve, substitutions};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::Release;

/// Solves the open steps with the daemon, and releases the image.
pub async fn finish(execution: &Execution<'_>, plan: &BuildPlan, progress: &mut SolveProgress) -> OrHalt<Outcome> {
    let Execution { daemon, imports, .. } = *execution;
    let context = &daemon.context;
    let release = request::open_release(execution, plan).await?;
    let at = Instant::now();
    let solved = solve_open(execution, plan, progress, release.as_ref()).await;
    progress.spent.build += at.elapsed().as_secs_f64();
    let solved = solved?;
    let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
    let outcome = Outcome { released: None, maker: Maker::Daemon, id, solved };
    let Some(release) = release else { return Ok(outcome) };
    let at = Instant::now();
    let before = if context.cache.gave_cache_up() { imports.latest().to_vec() } else { imports.before() };
    let (exit, made) = (daemon.exit(), outcome.solved.made());
    let pushed = release.push(&daemon.docker, exit, made, context.annotations(), &before, false, &[]);
    let pushed = Box::pin(pushed).await;
    progress.spent.push += at.elapsed().as_secs_f64();
    match pushed {
        // The daemon does not hand over layers that the cache has, and the cache cannot supply them.
        Err(failure) if context.cache.failed_by_cache(&failure)? => Err(Replan::CacheUnusable.into()),
        pushed => {
            let released = request::released(context, pushed.map_err(Error::from))?.map(Box::new);
            Ok(Outcome { released, ..outcome })
        }
    }
}

async fn solve_open(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: &mut SolveProgress,
    release: Option<&Release>,
) -> OrHalt<SolveOutcome> {
    let Execution { daemon, sinks, .. } = *execution;
    // Before the names of the local sources: these depend on the times.
    Box::pin(mounts::bring_in(execution, plan, &[plan.graph.result()], progress)).await?;
    progress.take_substitutions(substitutions::of_plan(execution, plan, release)?, plan);
    let result = plan.graph.result();
    let rewritten = progress.rewritten(plan, result).map_err(|error| broken(&error))?;
    progress.locate(&rewritten);
    let (exports, files) = request::exports(daemon, release, sinks)?;
    let request = request::request(daemon, exports, request::cache_exports(daemon, false));
    let (definition, metadata) = (&rewritten.definition, &plan.compiled.metadata());
    let imports = &execution.imports.imports;
    let ask = |mut gateway: Gateway| async move {
        let solved = gateway.graph(definition.clone(), imports, false).await?;
        Ok(Solved { metadata: metadata.clone(), ..solved })
    };
    let solved = solve::attempt(execution, &[&rewritten], request, progress, release, ask).await?;
    files.finish().await?;
    Ok(solved)
}
