//! Solves what is open on what is kept, and has the image handed over.

use std::time::Instant;

use crate::cache::session::CacheSession;
use crate::engine::buildkit::{Gateway, SolveOutcome, Solved};
use crate::error::{Error, Result};
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::rounds::tell_places;
use crate::executor::solve::{self, Attempted};
use crate::executor::{request, substitutions};
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::{Release, Released};
use crate::run::built::Built;
use crate::run::daemon::DaemonBuild;
use crate::run::work::Work;

/// Solves what is left to do, and has the image handed over.
pub async fn finish(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    plan: &mut BuildPlan,
    progress: &mut SolveProgress,
    cache: &CacheSession,
    work: &Work<'_>,
) -> Result<(Option<Released>, String, SolveOutcome)> {
    let context = &daemon.context;
    loop {
        let release = request::open_release(daemon, plan, work).await?;
        let at = Instant::now();
        let solved = solve_planned(daemon, built, plan, progress, cache, work, release.as_ref()).await?;
        built.report.seconds.build += at.elapsed().as_secs_f64();
        let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
        let Some(release) = release else { return Ok((None, id, solved)) };
        let at = Instant::now();
        let before = if context.cache.gave_store_up() { work.imports.latest().to_vec() } else { work.imports.before() };
        let done = release.push(&daemon.docker, daemon.exit(), solved.made(), context.annotations(), &before, false, &[]);
        let done = Box::pin(done).await;
        built.report.seconds.push += at.elapsed().as_secs_f64();
        match done {
            // The daemon does not hand over what the store has already, and that does not give it.
            Err(failure) if context.cache.failed_by_store(&failure)? => {
                progress.substitutions.clear();
                plan.without_records();
            }
            done => return Ok((request::released(context, done.map_err(Error::from))?, id, solved)),
        }
    }
}

/// Solves what is open on what is kept.
pub async fn solve_planned(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    plan: &mut BuildPlan,
    progress: &mut SolveProgress,
    cache: &CacheSession,
    work: &Work<'_>,
    release: Option<&Release>,
) -> Result<SolveOutcome> {
    loop {
        progress.take_grafts(substitutions::grafts(daemon, plan, cache, release)?, plan);
        let result = plan.graph.result();
        let rewritten = plan.graph.grafted(result, &progress.substitutions, &progress.given).map_err(|error| broken(&error))?;
        tell_places(built, &rewritten);
        let (exports, files) = request::exports(daemon, release, work.sinks)?;
        let request = request::request(daemon, exports, request::cache_exports(daemon, false));
        let (definition, metadata) = (&rewritten.definition, &plan.compiled.metadata());
        let imports = &work.imports.imports;
        let ask = |mut gateway: Gateway| async move {
            let solved = gateway.graph(definition.clone(), imports, false).await?;
            Ok(Solved { metadata: metadata.clone(), ..solved })
        };
        match solve::attempt(daemon, work, &[&rewritten], request, progress, release, ask).await? {
            Attempted::Done(solved) => {
                files.finish().await?;
                return Ok(solved);
            }
            Attempted::WithoutStore => plan.without_records(),
            Attempted::Moved => plan.without_pins(),
            Attempted::Otherwise => {}
        }
    }
}
