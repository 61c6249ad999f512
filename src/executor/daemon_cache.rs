//! A daemon that outlives the run: what it made itself it has in its own cache, and gets the graph as it is.

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

/// What this daemon made of the graph in earlier runs and still has. Its ID alone does not tell: before Docker 23 it stays when all
/// data go, and machines that were made from one disk share it.
pub async fn daemon_states(execution: &Execution<'_>, plan: &BuildPlan) -> Result<Option<DaemonRecord>> {
    let Execution { daemon, cache, ref records, .. } = *execution;
    if plan.decision.cached.is_empty() {
        return Ok(None);
    }
    let Some(record) = records.one(&cache.daemon_key(&daemon.info.id)).await? else { return Ok(None) };
    Ok(has_mark(execution, &record.mark).await?.then_some(record))
}

/// What this daemon has of the graph from its own work; nothing where images stood in for a part of it, whose steps it then knows by
/// other names.
pub async fn made_here<'a>(
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
            has_mark(execution, &new).await?;
            new
        }
    };
    Ok(Some(DaemonRecord { mark, states }))
}

/// Whether the daemon has a mark in its cache. It has from then on.
pub async fn has_mark(execution: &Execution<'_>, text: &str) -> Result<bool> {
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
