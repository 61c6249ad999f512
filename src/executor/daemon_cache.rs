//! Asks a daemon that outlives the run for its own cache. Such a daemon gets the graph without substitutions.

use crate::build::is_cut_off;
use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, SolveRequest, Solved};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::executor::execution::Execution;
use crate::executor::progress::SolveProgress;
use crate::graph::{Input, Key, Keys, mark};
use crate::plan::DaemonRecord;
use crate::planner::build_plan::BuildPlan;
use crate::run::daemon::noted;

/// Returns the states of the graph that this daemon made in earlier runs and still has. Returns `None` if it has none, or no
/// marker. The daemon's ID is not sufficient: before Docker 23 it stays the same after the daemon loses all data. Machines that
/// were cloned from one disk share it too.
///
/// # Errors
/// If the daemon does not answer, or the cache fails and is required.
pub async fn daemon_states(execution: &Execution<'_>, plan: &BuildPlan) -> Result<Option<DaemonRecord>> {
    let Execution { daemon, cache, ref records, .. } = *execution;
    if plan.decision.cached.is_empty() {
        return Ok(None);
    }
    let Some(record) = records.one(&cache.daemon_key(&daemon.info.id)).await? else { return Ok(None) };
    Ok(has_marker(execution, &record.mark).await?.then_some(record))
}

/// Returns the states of the graph that this daemon has made itself. Returns `None` if images replaced a part of the graph, because
/// the daemon then knows the steps by other names.
pub async fn states_made_by_daemon<'a>(
    execution: &Execution<'_>,
    plan: &'a BuildPlan,
    progress: &SolveProgress,
    keys: &Keys,
    new: impl Iterator<Item = &'a Input>,
) -> Result<Option<DaemonRecord>> {
    if progress.has_states {
        return Ok(None);
    }
    let known = |state: &Input| match keys.state(state) {
        Key::Known(key) => Some(key),
        _ => None,
    };
    let states = new.chain(plan.decision.cached.keys()).filter_map(known).collect();
    let mark = match &plan.daemon_states {
        Some(before) => before.mark.clone(),
        None => {
            let new = format!("{:032x}", rand::random::<u128>());
            has_marker(execution, &new).await?;
            new
        }
    };
    Ok(Some(DaemonRecord { mark, states }))
}

/// Returns whether the daemon has a marker in its cache. The call also puts the marker there.
pub async fn has_marker(execution: &Execution<'_>, text: &str) -> Result<bool> {
    let Execution { daemon, session, .. } = *execution;
    let (events, listening) = noted(Events::none());
    let definition = mark(text);
    let step = definition.def.first().map(|bytes| Digest::hash(bytes));
    let ask = |mut gateway: Gateway| async move {
        gateway.graph(definition, &[], true).await?;
        Ok(Solved::default())
    };
    let asked = daemon.buildkit.build(session, SolveRequest::default(), &events, ask).await;
    drop(events);
    let executed = listening.await.unwrap_or_default();
    if let Err(status) = asked {
        return Err(match is_cut_off(&status) {
            true => daemon.docker.went_away(status.message()).await,
            false => Error::build(format!("failed to query the daemon's build cache: {}", status.message())),
        });
    }
    Ok(step.is_some_and(|step| executed.found(&step)))
}
