//! Runs the stages whose files decide whether other steps are kept, and plans again.

use std::collections::HashSet;

use futures::future::try_join_all;

use crate::cache::record_reader::Remembered;
use crate::cache::session::Kept;
use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, SolveRequest, Solved};
use crate::error::Result;
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::solve::{self, Attempted};
use crate::executor::{inspect, substitutions};
use crate::graph::{Grafted, Graph, Input, Taken};
use crate::plan::{HopeRecord, hopes, next_round};
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
    planned: &mut BuildPlan,
    course: &mut SolveProgress,
    kept: &Kept,
    records: &Remembered<'_>,
    work: &Work<'_>,
) -> Result<bool> {
    let hoped = hopes(&planned.graph, &planned.keys, &planned.plan);
    let keys: Vec<_> = hoped.iter().map(|(_, key)| key.clone()).collect();
    let known = records.read::<HopeRecord>(&keys).await?;
    let hopeful: Vec<Input> = hoped.into_iter().filter(|(_, key)| known.contains_key(key)).map(|(state, _)| state).collect();
    let round = next_round(&planned.graph, &planned.keys, &planned.plan, &planned.facts.seen, &hopeful);
    if round.is_empty() {
        return Ok(false);
    }
    look_at_all(daemon, built, planned, course, kept, records, work, round).await?;
    Ok(true)
}

/// Has the stages solved that all this is taken out of, looks at it, and plans again.
#[allow(clippy::too_many_arguments, reason = "a run's state, which its steps change one after another")]
pub async fn look_at_all(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    planned: &mut BuildPlan,
    course: &mut SolveProgress,
    kept: &Kept,
    records: &Remembered<'_>,
    work: &Work<'_>,
    round: Vec<Taken>,
) -> Result<()> {
    course.take_grafts(substitutions::grafts(daemon, planned, kept, None)?, planned);
    let states: HashSet<&Input> = round.iter().map(|taken| &taken.state).collect();
    let mut all = Vec::new();
    for state in states {
        let grafted = planned.graph.grafted(state, &course.grafts, &course.given).map_err(|error| broken(&error))?;
        tell_places(built, &grafted);
        all.push(grafted);
    }
    let definitions: Vec<_> = all.iter().map(|grafted| grafted.definition.clone()).collect();
    let imports = work.cache.imports.clone();
    let ask = |gateway: Gateway| {
        let solves = definitions.clone().into_iter().map(|definition| {
            let (mut gateway, imports) = (gateway.clone(), imports.clone());
            async move { gateway.graph(definition, &imports, true).await }
        });
        let solves = try_join_all(solves);
        async move { solves.await.map(|_| Solved::default()) }
    };
    let request = SolveRequest { entitlements: daemon.job.build.entitlements.clone(), ..SolveRequest::default() };
    let grafted: Vec<&Grafted> = all.iter().collect();
    match solve::attempt(daemon, work, &grafted, request, course, None, ask).await? {
        Attempted::Done(_) => {}
        Attempted::WithoutStore => {
            planned.without_records();
            return Ok(());
        }
        Attempted::Moved => {
            planned.without_pins();
            return Ok(());
        }
        Attempted::Otherwise => return Ok(()),
    }
    for taken in round {
        let content = match inspect::look_at(daemon, planned, course, work, &taken).await {
            Ok(content) => content,
            Err(error) => {
                if work.session.moved().is_some() {
                    return Err(error);
                }
                if inspect::passes_by(daemon, course).await {
                    return Ok(());
                }
                if !daemon.job.cache.trusts_store() && course.has_grafts() {
                    daemon.job.cache.store_failed(error.message())?;
                    course.grafts.clear();
                    planned.without_records();
                    return Ok(());
                }
                if !daemon.docker.answers().await {
                    return Err(error);
                }
                // It is like nothing that was seen before: what copies from there runs.
                daemon
                    .job
                    .events
                    .warning(format!("{error}; the steps that copy from there run, and this build is not remembered"));
                course.unknown.insert(taken.place());
                Digest::of(&rand::random::<[u8; 32]>())
            }
        };
        planned.facts.seen.insert(taken.place(), content);
    }
    lookup::decide(planned, records).await
}

/// Where the steps of a graph stand in the user's file, and what is said of them, under the names that they have in it.
pub fn tell_places(built: &mut Built, grafted: &Grafted) {
    let graph = Graph::new(grafted.definition.clone()).ok();
    built.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
    for (digest, name) in &grafted.names {
        if let Some(note) = built.notes.get(&digest.to_string()).cloned() {
            built.notes.insert(name.to_string(), note);
        }
    }
}
