//! Checks that a state's record is possible, by the graph and its base image.

use std::collections::HashMap;

use super::decide::states;
use super::facts::KnownFacts;
use super::record::StepRecord;
use crate::domain::{DiffId, StepKey};
use crate::graph::{Graph, Input, Key, Keys};

/// Returns whether a record has the layers of the state's base image, and above them exactly as many layers as the steps make.
#[must_use]
pub fn fits(graph: &Graph, facts: &KnownFacts, state: &Input, record: &StepRecord) -> bool {
    let chain = graph.chain_of(state);
    let base: &[DiffId] = match &chain.base {
        None => &[],
        Some(base) => match facts.images.get(&base.step) {
            Some(Ok(layers)) => layers,
            _ => return false,
        },
    };
    record.layers.len() == base.len() + chain.layers() && record.diff_ids().starts_with(base)
}

/// Returns the keys whose records do not fit their states.
#[must_use]
pub fn misfits(graph: &Graph, keys: &Keys, facts: &KnownFacts, records: &HashMap<StepKey, StepRecord>) -> Vec<StepKey> {
    let mut out = Vec::new();
    for state in states(graph) {
        if let Key::Known(key) = keys.state(&state)
            && !out.contains(&key)
            && records.get(&key).is_some_and(|record| !fits(graph, facts, &state, record))
        {
            out.push(key);
        }
    }
    out
}
