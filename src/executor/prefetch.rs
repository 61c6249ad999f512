//! Lets the daemon pull the images on which commands run, while hakobi still does other work for these commands.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, SolveRequest, Solved, pb};
use crate::executor::execution::Execution;
use crate::executor::progress::SolveProgress;
use crate::executor::substitutions;
use crate::graph::{Graph, Input, Op};
use crate::planner::build_plan::BuildPlan;
use crate::run::transport::LayerTransport;

/// Returns the images that the daemon must unpack for the commands that run for these states, each as a graph.
pub fn images(execution: &Execution<'_>, plan: &BuildPlan, states: &[&Input], progress: &SolveProgress) -> Vec<pb::Definition> {
    // The daemon loads archives one after the other, and then needs no pull.
    if execution.daemon.transport != LayerTransport::Registry {
        return Vec::new();
    }
    // If anything fails here, the solve itself says so.
    let Ok(mut substitutions) = substitutions::of_plan(execution, plan, None) else { return Vec::new() };
    substitutions.extend(progress.substitutions.clone());
    substitutions.retain(|state, _| !plan.decision.runs(&state.step));
    let rewritten = states.iter().filter_map(|state| plan.graph.rewritten(state, &substitutions, &progress.solved).ok());
    let graphs: Vec<Graph> = rewritten.filter_map(|rewritten| Graph::new(rewritten.definition).ok()).collect();
    let (mut seen, mut images) = (BTreeSet::<Digest>::new(), Vec::new());
    for graph in &graphs {
        for command in graph.below(graph.result()).into_iter().filter(|op| op.is_command()) {
            let lineage = graph.lineage(&whole(command));
            let bases = lineage.into_iter().filter(|op| op.image().is_some());
            images.extend(bases.filter(|op| seen.insert(op.digest.clone())).map(|op| graph.cut(&whole(op))));
        }
    }
    images
}

/// Lets the daemon pull and unpack these images. A fault is no error: the solve that needs the image will have it too.
pub async fn pull(execution: &Execution<'_>, images: Vec<pb::Definition>) {
    let Execution { daemon, session, .. } = *execution;
    if images.is_empty() {
        return;
    }
    let cache = &daemon.context.cache;
    let ask = |gateway: Gateway| async move {
        let solves = images.into_iter().map(|definition| {
            let mut gateway = gateway.clone();
            async move { gateway.graph(definition, &[], true).await }
        });
        try_join_all(solves).await.map(|_| Solved::default())
    };
    tokio::select! {
        biased;
        _ = cache.cannot_pass() => {}
        () = cache.found_damage() => {}
        pulled = daemon.buildkit.build(session, SolveRequest::default(), daemon.context.events, ask) => {
            if let Err(status) = pulled {
                tracing::info!(why = status.message(), "failed to pull images ahead");
            }
        }
    }
}

fn whole(op: &Op) -> Input {
    Input { step: op.digest.clone(), output: 0 }
}
