//! Finds the files to look at before the next decision. A step that copies files out of a stage can be cached even if the stage
//! runs: the stage may make the same files as before (BuildKit `solver/edge.go`: `processDepSlowCacheReq`).

use std::collections::HashSet;

use super::decide::{Plan, rests_on, states};
use super::facts::Seen;
use crate::domain::PartialKey;
use crate::graph::{CopySource, Graph, Input, InputDependency, Keys, Op, input_dependencies};

/// Returns states that have to run as far as is known, with the partial keys by which a cached state may match.
#[must_use]
pub fn speculative_states(graph: &Graph, keys: &Keys, plan: &Plan) -> Vec<(Input, PartialKey)> {
    let open = states(graph).into_iter().filter(|state| plan.runs(&state.step));
    open.filter_map(|state| Some((state.clone(), keys.key_without_copied_content(&state)?))).collect()
}

/// Returns the files to look at next so that one of these states may be found. They are the innermost, because files further out
/// may turn out to be unchanged.
#[must_use]
pub fn next_round(graph: &Graph, keys: &Keys, plan: &Plan, seen: &Seen, hopeful: &[Input]) -> Vec<CopySource> {
    let wanted: HashSet<_> = hopeful.iter().flat_map(|state| rests_on(graph, seen, state)).map(|op| &op.digest).collect();
    let takes = |op: &Op, copied: &CopySource| {
        let mut taking = op.inputs.iter().zip(input_dependencies(op));
        taking.any(|(input, used)| {
            *input == copied.state && matches!(used, InputDependency::Content(selectors) if selectors == copied.selectors)
        })
    };
    let open: Vec<(&CopySource, Vec<&Op>)> = keys
        .copy_sources()
        .iter()
        .filter(|copied| !seen.contains_key(&copied.place()))
        .filter_map(|copied| {
            let all = graph.below(graph.result()).into_iter();
            let takers: Vec<&Op> = all.filter(|op| wanted.contains(&op.digest) && takes(op, copied)).collect();
            let open = takers.iter().any(|op| plan.runs(&op.digest));
            open.then_some((copied, takers))
        })
        .collect();
    let inner = |copied: &CopySource| {
        let below: HashSet<_> = rests_on(graph, seen, &copied.state).into_iter().map(|op| &op.digest).collect();
        !open.iter().any(|(other, takers)| *other != copied && takers.iter().any(|op| below.contains(&op.digest)))
    };
    open.iter().map(|(copied, _)| *copied).filter(|copied| inner(copied)).cloned().collect()
}
