//! Compares the daemon's layers of files with the layers that hakobi would make of the hashed files.

use std::collections::HashMap;

use crate::build_context::Tree;
use crate::domain::{DiffId, OperationKey, Selector};
use crate::engine::StoreKind;
use crate::error::Result;
use crate::executor::context_files::{Contexts, content};
use crate::graph::{Input, Op, operation_key};
use crate::handover::PreparedImage;
use crate::layers::{LayerIndex, PathIndex};
use crate::plan::{ExpectedContents, expected_contents, missing, unexpected_file};
use crate::recorder::layers;
use crate::recorder::recording::{Evidence, Recorder};

/// The result of comparing a layer with the files that its step's key contains.
pub enum Compared {
    /// The daemon's layer is the assembled layer, so such a step does not require a daemon.
    Same(Option<OperationKey>),
    /// hakobi found no difference, but cannot compare everything.
    Unknown,
    /// A path differs from the files.
    Other(String),
}

/// A layer of an image, and the step that made it.
pub struct Made<'a> {
    pub op: &'a Op,
    pub image: &'a PreparedImage,
    /// The number of the layer.
    pub place: usize,
    /// The paths below the layer, if they are known.
    pub below: Option<&'a PathIndex>,
}

/// Compares the daemon's layer of files with the layer that hakobi would make.
///
/// # Errors
/// If a layer cannot be read again.
pub async fn compared(
    recorder: &Recorder<'_>,
    made: Made<'_>,
    contexts: Option<&Contexts>,
    indexes: &HashMap<DiffId, LayerIndex>,
    evidence: &Evidence<'_>,
) -> Result<Compared> {
    let (graph, op) = (&recorder.plan.graph, made.op);
    if op.files().is_none() {
        return Ok(Compared::Unknown);
    }
    let Some(layer) = layers::tree(recorder, &made.image.layers[made.place], evidence).await? else {
        return Ok(Compared::Unknown);
    };
    let assembled = contexts.zip(made.below).map(|(contexts, below)| contexts.assemble_layer(graph, op, below));
    let Some(Ok(assembled)) = assembled else { return Ok(compared_roughly(recorder, op, &layer, evidence)) };
    let content = |source: usize, path: &str| content(recorder.plan, op, source, path);
    if let Some(what) = assembled.differs(&layer, &content) {
        return Ok(Compared::Other(what));
    }
    for path in assembled.left_out(&layer) {
        let lower = made.image.diff_ids[..made.place].iter().zip(&made.image.layers).rev();
        let mut lower = lower.filter(|(diff_id, _)| indexes.get(diff_id).is_some_and(|index| index.entries.contains_key(path)));
        let there = match lower.next() {
            Some((_, blob)) => layers::tree(recorder, blob, evidence).await?.and_then(|tree| tree.get(path).cloned()),
            None => None,
        };
        match there.map(|node| assembled.differs_at(path, &node, &content)) {
            Some(None) => {}
            Some(Some(what)) => return Ok(Compared::Other(format!("{path}: {what} (the layers below keep their version)"))),
            None => return Ok(Compared::Other(format!("{path}: not in the daemon's layer"))),
        }
    }
    Ok(Compared::Same(operation_key(graph, op)))
}

/// Compares a layer with the contents that it may have, if hakobi does not know the paths for certain.
pub fn compared_roughly(recorder: &Recorder<'_>, op: &Op, layer: &Tree, evidence: &Evidence<'_>) -> Compared {
    let of = |input: &Input, selectors: &[Selector]| match recorder.plan.facts.locals.get(&input.step) {
        Some(local) => local.as_ref().ok().map(|tree| &**tree),
        None => evidence.progress.trees.get(&(input.clone(), selectors.to_vec())),
    };
    let expected_contents = expected_contents(&recorder.plan.graph, op, of);
    if expected_contents == ExpectedContents::Anything {
        return Compared::Unknown;
    }
    if let Some(path) = unexpected_file(layer, &expected_contents) {
        return Compared::Other(format!("{path}: the content differs"));
    }
    // Only the containerd store omits files that it considers unchanged, by size and time.
    let leaves_out = recorder.execution.daemon.info.store == StoreKind::Containerd;
    match missing(layer, &expected_contents).filter(|_| leaves_out) {
        Some(path) => Compared::Other(format!("{path}: not in the daemon's layer")),
        None => Compared::Unknown,
    }
}
