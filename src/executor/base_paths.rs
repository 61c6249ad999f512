//! Looks into base images: whether they have files where `--auto-mounts` would mount the cache of a tool.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::build::Refusal;
use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, SolveRequest, Solved};
use crate::error::Result;
use crate::executor::execution::{Execution, Halt, OrHalt};
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::{solve, substitutions};
use crate::graph::{Input, RewrittenGraph};
use crate::planner::build_plan::BuildPlan;
use crate::planner::{auto_mounts, lookup, replan};

/// Whether a base image has files at a path, by the image's step and the path.
type Found = Vec<((Digest, String), bool)>;

/// Looks into the base images of commands that run, and plans again with what is there. The daemon needs these images anyway. If it
/// cannot get one now, the build goes on without mounts that are not declared.
///
/// # Errors
/// If the build cannot go on, or the cache fails and is required.
pub async fn look(execution: &Execution<'_>, plan: &mut BuildPlan, progress: &mut SolveProgress) -> Result<()> {
    let unknown = auto_mounts::unknown(plan);
    if unknown.is_empty() {
        return Ok(());
    }
    let looked = async {
        progress.take_substitutions(substitutions::of_plan(execution, plan, None)?, plan);
        let mut bases = Vec::new();
        for (base, paths) in unknown {
            let state = Input { step: base.clone(), output: 0 };
            let rewritten = progress.rewritten(plan, &state);
            bases.push((base, paths, rewritten.map_err(|error| broken(&error))?));
        }
        files_at(execution, &bases, progress).await
    };
    match looked.await {
        Ok(found) => {
            auto_mounts::learn(plan, found)?;
            lookup::decide(plan, &execution.records).await
        }
        Err(halt) => {
            let events = execution.daemon.context.events;
            events.note("--auto-mounts: failed to look into a base image; mounting nothing on it");
            match halt {
                Halt::Replan(why) => {
                    progress.replanned(&why, events);
                    replan::replan(plan, why, &execution.records).await
                }
                // If the build needs the image, it fails with this error.
                Halt::Failed(error) => {
                    tracing::info!(why = error.message(), "failed to look into a base image");
                    Ok(())
                }
            }
        }
    }
}

async fn files_at(
    execution: &Execution<'_>,
    bases: &[(Digest, BTreeSet<String>, RewrittenGraph)],
    progress: &mut SolveProgress,
) -> OrHalt<Found> {
    let found = Mutex::new(HashMap::new());
    let ask = |gateway: Gateway| {
        let found = &found;
        async move {
            let looks = bases.iter().map(|(base, paths, rewritten)| {
                let mut gateway = gateway.clone();
                async move {
                    let root = gateway.graph(rewritten.definition.clone(), &[], true).await?;
                    let root = root.references.into_values().next().unwrap_or_default();
                    for path in paths {
                        let has_files = gateway.has_files(&root, path).await?;
                        found.lock().unwrap_or_else(PoisonError::into_inner).insert((base.clone(), path.clone()), has_files);
                    }
                    Ok::<(), Refusal>(())
                }
            });
            futures::future::try_join_all(looks).await?;
            Ok(Solved::default())
        }
    };
    let request = SolveRequest { entitlements: execution.daemon.context.build.entitlements.clone(), ..SolveRequest::default() };
    let graphs: Vec<&RewrittenGraph> = bases.iter().map(|(_, _, rewritten)| rewritten).collect();
    solve::attempt(execution, &graphs, request, progress, None, ask).await?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect())
}
