//! Runs the stages whose files decide whether other steps are kept, and plans again.

use std::collections::HashSet;

use futures::future::try_join_all;

use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, SolveRequest, Solved};
use crate::error::Result;
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::solve::{self, Attempted};
use crate::executor::{inspect, substitutions};
use crate::graph::{CopySource, Graph, Input, RewrittenGraph};
use crate::plan::{next_round, partial_key, speculative_states};
use crate::planner::build_plan::BuildPlan;
use crate::planner::lookup;
use crate::run::built::Built;
use crate::run::daemon::DaemonBuild;
use crate::run::work::Work;

/// Runs the stages whose files decide whether other steps are kept, looks at these, and plans again; tells whether there were
/// any.
pub async fn round(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    plan: &mut BuildPlan,
    progress: &mut SolveProgress,
    cache: &CacheSession,
    records: &RecordReader<'_>,
    work: &Work<'_>,
) -> Result<bool> {
    let hoped = speculative_states(&plan.graph, &plan.keys, &plan.decision);
    let known = records.read(hoped.iter().map(|(_, key)| key.clone()), partial_key).await?;
    let hopeful: Vec<Input> = hoped.into_iter().filter(|(_, key)| known.contains_key(key)).map(|(state, _)| state).collect();
    let round = next_round(&plan.graph, &plan.keys, &plan.decision, &plan.facts.seen, &hopeful);
    if round.is_empty() {
        return Ok(false);
    }
    look_at_all(daemon, built, plan, progress, cache, records, work, round).await?;
    Ok(true)
}

/// Has the stages solved that all this is taken out of, looks at it, and plans again.
#[allow(clippy::too_many_arguments, reason = "a run's state, which its steps change one after another")]
pub async fn look_at_all(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    plan: &mut BuildPlan,
    progress: &mut SolveProgress,
    cache: &CacheSession,
    records: &RecordReader<'_>,
    work: &Work<'_>,
    round: Vec<CopySource>,
) -> Result<()> {
    progress.take_grafts(substitutions::grafts(daemon, plan, cache, None)?, plan);
    let states: HashSet<&Input> = round.iter().map(|taken| &taken.state).collect();
    let mut all = Vec::new();
    for state in states {
        let rewritten = plan.graph.grafted(state, &progress.substitutions, &progress.given).map_err(|error| broken(&error))?;
        tell_places(built, &rewritten);
        all.push(rewritten);
    }
    let definitions: Vec<_> = all.iter().map(|rewritten| rewritten.definition.clone()).collect();
    let imports = work.imports.imports.clone();
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
    match solve::attempt(daemon, work, &rewritten, request, progress, None, ask).await? {
        Attempted::Done(_) => {}
        Attempted::WithoutStore => {
            plan.without_records();
            return Ok(());
        }
        Attempted::Moved => {
            plan.without_pins();
            return Ok(());
        }
        Attempted::Otherwise => return Ok(()),
    }
    for taken in round {
        let content = match inspect::look_at(daemon, plan, progress, work, &taken).await {
            Ok(content) => content,
            Err(error) => {
                if work.session.moved().is_some() {
                    return Err(error);
                }
                if inspect::bypasses_pull_through(daemon, progress).await {
                    return Ok(());
                }
                if !daemon.context.cache.trusts_store() && progress.has_grafts() {
                    daemon.context.cache.store_failed(error.message())?;
                    progress.substitutions.clear();
                    plan.without_records();
                    return Ok(());
                }
                if !daemon.docker.answers().await {
                    return Err(error);
                }
                // It is like nothing that was seen before: what copies from there runs.
                daemon
                    .context
                    .events
                    .warning(format!("{error}; the steps that copy from there run, and this build is not remembered"));
                progress.unknown.insert(taken.place());
                Digest::of(&rand::random::<[u8; 32]>())
            }
        };
        plan.facts.seen.insert(taken.place(), content);
    }
    lookup::decide(plan, records).await
}

/// Where the steps of a graph stand in the user's file, and what is said of them, under the names that they have in it.
pub fn tell_places(built: &mut Built, rewritten: &RewrittenGraph) {
    let graph = Graph::new(rewritten.definition.clone()).ok();
    built.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
    for (digest, name) in &rewritten.names {
        if let Some(note) = built.notes.get(&digest.to_string()).cloned() {
            built.notes.insert(name.to_string(), note);
        }
    }
}
