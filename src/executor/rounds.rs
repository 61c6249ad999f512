//! Runs stages whose files decide whether other steps can be reused. The build is then planned again.

use std::collections::HashSet;

use futures::future::try_join_all;

use crate::domain::{Digest, Selector};
use crate::engine::buildkit::{Gateway, SolveRequest, Solved};
use crate::executor::execution::{Execution, OrHalt};
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::{inspect, mounts, solve, substitutions};
use crate::graph::{CopySource, Input, RewrittenGraph};
use crate::plan::{next_round, partial_key, speculative_states};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;

/// The digests of files that steps copy, by the place that they are copied from.
pub type Contents = Vec<((Input, Vec<Selector>), Digest)>;

/// Runs the stages whose files decide whether other steps can be reused, and hashes these files. Returns `None` if there are no
/// such stages.
pub async fn observe(execution: &Execution<'_>, plan: &BuildPlan, progress: &mut SolveProgress) -> OrHalt<Option<Contents>> {
    let states = speculative_states(&plan.graph, &plan.keys, &plan.decision);
    let known = execution.records.read(states.iter().map(|(_, key)| key.clone()), partial_key).await?;
    let hopeful: Vec<Input> = states.into_iter().filter(|(_, key)| known.contains_key(key)).map(|(state, _)| state).collect();
    let round = next_round(&plan.graph, &plan.keys, &plan.decision, &plan.facts.seen, &hopeful);
    if round.is_empty() {
        return Ok(None);
    }
    observe_all(execution, plan, progress, round).await.map(Some)
}

/// Solves the stages that these files are copied from, and hashes the files.
pub async fn observe_all(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    progress: &mut SolveProgress,
    round: Vec<CopySource>,
) -> OrHalt<Contents> {
    let Execution { daemon, session, .. } = *execution;
    let states: HashSet<&Input> = round.iter().map(|copied| &copied.state).collect();
    Box::pin(mounts::bring_in(execution, plan, &states.iter().copied().collect::<Vec<_>>(), progress)).await?;
    progress.take_substitutions(substitutions::of_plan(execution, plan, None)?, plan);
    let mut all = Vec::new();
    for state in states {
        let rewritten = progress.rewritten(plan, state).map_err(|error| broken(&error))?;
        progress.locate(&rewritten);
        all.push(rewritten);
    }
    let definitions: Vec<_> = all.iter().map(|rewritten| rewritten.definition.clone()).collect();
    let imports = execution.imports.imports.clone();
    let ask = |gateway: Gateway| {
        let solves = definitions.clone().into_iter().map(|definition| {
            let (mut gateway, imports) = (gateway.clone(), imports.clone());
            async move { gateway.graph(definition, &imports, true).await }
        });
        let solves = try_join_all(solves);
        async move { solves.await.map(|_| Solved::default()) }
    };
    let request = SolveRequest { entitlements: daemon.context.build.entitlements.clone(), ..SolveRequest::default() };
    let rewritten: Vec<&RewrittenGraph> = all.iter().collect();
    solve::attempt(execution, &rewritten, request, progress, None, ask).await?;
    let mut contents = Vec::new();
    for copied in round {
        let content = match inspect::observe(execution, plan, progress, &copied).await {
            Ok(content) => content,
            Err(error) if session.moved().is_some() => return Err(error.into()),
            Err(error) => {
                if let Some(why) = inspect::bypasses_pull_through(daemon, progress).await {
                    return Err(Replan::BypassBaseProxy(why).into());
                }
                if !daemon.context.cache.trusts_cache() && progress.has_substituted_images() {
                    daemon.context.cache.cache_failed(error.message())?;
                    return Err(Replan::CacheUnusable.into());
                }
                if !daemon.docker.answers().await {
                    return Err(error.into());
                }
                // The content counts as new: the steps that copy it run.
                daemon
                    .context
                    .events
                    .warning(format!("{error}; running the steps that copy from there, without saving this build"));
                progress.unknown.insert(copied.place());
                Digest::hash(&rand::random::<[u8; 32]>())
            }
        };
        contents.push((copied.place(), content));
    }
    Ok(contents)
}
