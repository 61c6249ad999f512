//! Makes the records of the states on a chain of steps.

use std::collections::HashMap;

use crate::domain::{DiffId, OperationKey, seconds_now};
use crate::error::Result;
use crate::executor::context_files::Contexts;
use crate::executor::graph_errors::created;
use crate::graph::{Input, Key, Op};
use crate::handover::PreparedImage;
use crate::layers::{LayerIndex, PathIndex};
use crate::plan::{Layer, StepRecord};
use crate::recorder::compare::{self, Compared, Made};
use crate::recorder::recording::{Evidence, Recorder};

/// Adds the records of the states on a chain, if the image fits it. It must have one layer for each step, on the layers of the base
/// image. Each layer of files must have the content that the files give. Returns the kinds of step for which the daemon made the
/// same layer as hakobi.
///
/// # Errors
/// If a layer cannot be read again.
pub async fn chain(
    recorder: &Recorder<'_>,
    state: &Input,
    image: &PreparedImage,
    evidence: &Evidence<'_>,
    indexes: &HashMap<DiffId, LayerIndex>,
    records: &mut HashMap<Input, StepRecord>,
) -> Result<Vec<OperationKey>> {
    let mut proofs = Vec::new();
    let chain = recorder.plan.graph.chain_of(state);
    let base: Vec<DiffId> = match &chain.base {
        None => Vec::new(),
        Some(base) => match recorder.plan.facts.images.get(&base.step) {
            Some(Ok(layers)) => layers.clone(),
            _ => return Ok(proofs),
        },
    };
    if image.diff_ids.len() != base.len() + chain.layers() || !image.diff_ids.starts_with(&base) {
        recorder.execution.daemon.context.events.note(format!(
            "not saving a stage: the daemon made {} layers for {} steps on {} base layers",
            image.diff_ids.len(),
            chain.layers(),
            base.len()
        ));
        return Ok(proofs);
    }
    let base_layers = base.len();
    let created = created(&image.config, image.diff_ids.len());
    let layers: Vec<Layer> = image
        .layers
        .iter()
        .zip(&image.diff_ids)
        .zip(created)
        .map(|((blob, diff_id), created)| Layer { blob: blob.clone().bare(), diff_id: diff_id.clone(), created })
        .collect();
    // hakobi appends to the base image without pulling it, if the chain's first step only adds files.
    if let Some(base) = &chain.base {
        records.insert(base.clone(), StepRecord { layers: layers[..base_layers].to_vec(), ran: None });
    }
    let now = seconds_now();
    let makers: Vec<&Op> = chain.links.iter().filter_map(|link| recorder.plan.graph.op(&link.made_by)).collect();
    let contexts = Contexts::hashed(recorder.plan, &makers);
    let known = |layers: &[DiffId]| layers.iter().map(|layer| indexes.get(layer)).collect::<Option<Vec<_>>>();
    let nothing = PathIndex::default();
    // Only the paths of the final image's layers are known.
    let mut below = known(&image.diff_ids[..base_layers]).map(PathIndex::from_layers);
    for link in &chain.links {
        let place = (base_layers + link.layers).saturating_sub(1);
        let made = recorder.plan.graph.op(&link.made_by).filter(|_| place < layers.len());
        // A cached layer is as it was recorded.
        if evidence.progress.solved.contains(&link.state.step) {
            if let Some(op) = made {
                // BuildKit makes a layer that it merges on an empty state.
                let below = if op.digest == link.state.step { below.as_ref() } else { Some(&nothing) };
                match compare::compared(recorder, Made { op, image, place, below }, contexts.as_ref(), indexes, evidence).await? {
                    Compared::Same(operation_key) => proofs.extend(operation_key),
                    Compared::Unknown => {}
                    Compared::Other(what) => {
                        recorder.execution.daemon.context.events.warning(format!(
                            "not saving `{}` and the steps on it: the daemon's layer does not match its files ({what})",
                            crate::graph::instruction_of(&op.name)
                        ));
                        return Ok(proofs);
                    }
                }
            }
            let layers = &layers[..base_layers + link.layers];
            if let Key::Known(_) = evidence.keys.state(&link.state) {
                let ran = evidence.progress.ran.contains(&link.state.step).then_some(now);
                records.insert(link.state.clone(), StepRecord { layers: layers.to_vec(), ran });
            }
        }
        below = below.zip(image.diff_ids.get(place).and_then(|layer| indexes.get(layer))).map(|(mut below, index)| {
            below.apply(index);
            below
        });
    }
    Ok(proofs)
}
