//! Hashes files that steps copy out of stages, with the daemon's own copier.

use tokio_util::io::SyncIoBridge;

use crate::build::is_cut_off;
use crate::build_context::Tree;
use crate::domain::{Digest, Selector};
use crate::engine::buildkit::{Export, Gateway, SolveRequest, pb};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::executor::execution::Execution;
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::graph::{CopySource, Graph};
use crate::planner::build_plan::BuildPlan;
use crate::run::daemon::DaemonBuild;

/// Buffer size between the daemon's stream and its reader, in bytes.
pub const PIPE: usize = 1 << 20;

/// Hashes the files that a step copies out of a solved state, with the daemon's own copier.
///
/// # Errors
/// If the daemon cannot send the files.
pub async fn observe(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: &mut SolveProgress,
    copied: &CopySource,
) -> Result<Digest> {
    let place = copied.place();
    if !progress.trees.contains_key(&place) {
        let rewritten = progress.rewritten(plan, &copied.state).map_err(|error| broken(&error))?;
        let tree = extract(execution, rewritten.definition, &copied.selectors).await?;
        // The daemon fetches a source each time, and it is the same each time.
        let is_step = |step: &Digest| plan.graph.op(step).is_some_and(|op| !op.inputs.is_empty());
        progress.looked_at.extend(rewritten.names.into_keys().filter(is_step));
        progress.trees.insert(place.clone(), tree);
    }
    let tree = progress.trees.get(&place).ok_or_else(|| Error::build("the files copied from a stage were not inspected"))?;
    let content = tree.digest(&[Selector::everything()]);
    content.map_err(|error| Error::build("the files copied from a stage have no digest").because(&error))
}

/// Returns why the daemon must pull base images itself: hakobi could not look at a file because a layer did not pass through
/// hakobi. Returns `None` if there is no such layer, or the daemon pulls them already.
pub async fn bypasses_pull_through(daemon: &DaemonBuild<'_>, progress: &SolveProgress) -> Option<String> {
    daemon.context.cache.not_passed().await.filter(|_| !progress.bypasses)
}

pub async fn extract(execution: &Execution<'_>, definition: pb::Definition, selectors: &[Selector]) -> Result<Tree> {
    let Execution { daemon, session, sinks, .. } = *execution;
    let graph = Graph::new(definition).map_err(|error| broken(&error))?;
    let definition = graph.extraction(selectors);
    let (ours, theirs) = tokio::io::duplex(PIPE);
    sinks.add(0, Box::new(ours));
    let reading = tokio::task::spawn_blocking(move || {
        let mut from = SyncIoBridge::new(theirs);
        let tree = Tree::from_tar(&mut from);
        // Reads to the end, so that the writer does not fail with bytes after the archive's end.
        std::io::copy(&mut from, &mut std::io::sink())?;
        tree
    });
    let export = Export { kind: "tar".to_owned(), attributes: [].into() };
    let entitlements = daemon.context.build.entitlements.clone();
    let request = SolveRequest { exports: vec![export], entitlements, ..SolveRequest::default() };
    let ask = |mut gateway: Gateway| async move { gateway.graph(definition, &[], false).await };
    match daemon.buildkit.build(session, request, &Events::none(), ask).await {
        Ok(_) => {}
        Err(status) if is_cut_off(&status) => return Err(daemon.docker.went_away(status.message()).await),
        Err(status) => {
            return Err(Error::build(format!("failed to inspect the files copied from a stage: {}", status.message())));
        }
    }
    let tree = reading.await.map_err(std::io::Error::other).and_then(|tree| tree);
    tree.map_err(|error| Error::build("failed to read the files copied from a stage").because(&error))
}
