//! Assembles layers without a daemon: files of the build context, on a base image that is not downloaded.
//!
//! hakobi assembles a step only if a daemon once made the same layer as hakobi for a step of this kind (`proving`).

use crate::cache::layer_index;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::{Digest, seconds_now};
use crate::executor::context_files::{Contexts, content};
use crate::executor::execution::OrHalt;
use crate::executor::graph_errors::broken;
use crate::executor::outcome::{Maker, NewLayers, Outcome};
use crate::executor::refused::replan_after;
use crate::executor::reuse::{composed, image_of};
use crate::executor::{append_base, metadata_only, write_layer};
use crate::graph::{Graph, Op, operation_key};
use crate::layers::assemble::AssembledLayer;
use crate::layers::{LayerIndex, PathIndex};
use crate::plan::{Appendable, StepRecord, appendable, proof_key};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::{PutOutcome, Release};
use crate::run::context::BuildContext;

/// A step with its assembled layer.
pub struct ComputedLayer<'a> {
    /// The step that makes the layer.
    pub op: &'a Op,
    pub assembled: AssembledLayer,
}

/// An image, or the reason why the build requires a daemon. The reason is `None` if a command must run.
pub type Assembled = std::result::Result<Outcome, Option<String>>;

/// Makes the image with assembled layers, if its last steps only copy files of the build context and it is only pushed.
///
/// # Errors
/// [`Replan::SourcesMoved`] if a file changed after hakobi hashed it; [`Replan::CacheUnusable`] if the cache cannot supply what its
/// records name.
pub async fn assemble(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> OrHalt<Assembled> {
    // With SOURCE_DATE_EPOCH, all times in the image would have to be that time.
    let has_epoch = context.build.build_args.iter().any(|(name, _)| name == "SOURCE_DATE_EPOCH");
    if let Some(base) = plan.base_alone().filter(|_| context.is_only_pushed() && !has_epoch) {
        return Ok(metadata_only::put_base(context, plan, cache, base).await?.ok_or(None));
    }
    let Some(open) = appendable(&plan.graph, &plan.decision).filter(|_| context.is_only_pushed() && !has_epoch) else {
        return Ok(Err(None));
    };
    let not = |why: &str| Ok(Err(Some(why.to_owned())));
    let Some(below) = append_base::known_base(plan, &open, records).await? else {
        return not("hakobi does not know the state that the step copies to");
    };
    let now = seconds_now();
    let worked = match compute_layers(plan, &open, below.paths, records, now).await? {
        Ok(worked) => worked,
        Err(why) => return Ok(Err(Some(why))),
    };
    let settings = &context.build.push_settings;
    let keep = cache.target().map(|target| target.repository);
    let release = Release::open(&context.registries, &context.tags, keep.as_ref(), settings, &[], context.events).await?;
    let mut layers = below.layers;
    let mut indexes = Vec::new();
    for (ComputedLayer { op, assembled }, index) in worked {
        let step = context.events.step(op.name.clone());
        let layer = write_layer::write(context, plan, op, assembled, now, &release).await;
        let layer = match layer {
            Ok(Ok(layer)) => {
                step.done();
                layer
            }
            Ok(Err(difference)) => {
                step.failed(&difference);
                return Err(Replan::SourcesMoved(difference).into());
            }
            Err(error) => {
                step.failed(&error);
                return Err(error.into());
            }
        };
        if !index.holds(context.events.hidden()) {
            indexes.push((layer_index::key(&layer.blob.digest, &layer.diff_id), index));
        }
        layers.push(layer);
    }
    release.finish().await?;
    let image = image_of(context, plan, &layers).map_err(|error| broken(&error))?;
    let Some(own) = cache.own() else { return Ok(Err(None)) };
    let released = match release.put(composed(image.manifest, image.config)?, own).await? {
        PutOutcome::Done(released) => released,
        PutOutcome::Not(why) => return Err(replan_after(&why, context, plan, cache, records).await?.into()),
    };
    let chain = plan.graph.chain_of(plan.graph.result());
    let base = layers.len().saturating_sub(chain.layers());
    let new = chain.links.iter().filter(|link| open.steps.contains(&link.state.step)).filter_map(|link| {
        let layers = layers.get(..base + link.layers)?.to_vec();
        Some((link.state.clone(), StepRecord { layers, ran: None }))
    });
    let new = NewLayers { records: new.collect(), indexes, of_base: None };
    Ok(Ok(Outcome::pushed(released, Maker::Hakobi(new))))
}

/// Assembles the layers of the open steps, on a state with these paths. `now` is the time of new parent directories, in seconds of
/// the Unix epoch: BuildKit gives these the time of the build. Returns the reason if this requires a daemon.
///
/// # Errors
/// [`Replan::SourcesMoved`] if a file changed after hakobi hashed it.
pub async fn compute_layers<'a>(
    plan: &'a BuildPlan,
    open: &Appendable,
    mut paths: PathIndex,
    records: &RecordReader<'_>,
    now: u64,
) -> OrHalt<std::result::Result<Vec<(ComputedLayer<'a>, LayerIndex)>, String>> {
    let not = |why: &str| Ok(Err(why.to_owned()));
    let Some(makers) = makers(&plan.graph, open) else { return not("the step merges more than one layer") };
    let operation_keys: Option<Vec<_>> = makers.iter().map(|op| operation_key(&plan.graph, op)).collect();
    let operation_keys = operation_keys.unwrap_or_default();
    let proofs = records.read(operation_keys.iter().cloned(), proof_key).await?;
    if operation_keys.is_empty() || !operation_keys.iter().all(|operation_key| proofs.contains_key(operation_key)) {
        return not("this kind of step has not been verified against a Docker daemon yet");
    }
    let contexts = match Contexts::read(plan, &makers).await {
        Ok(Some(contexts)) => contexts,
        Ok(None) => return not("failed to read the build context"),
        Err(difference) => return Err(Replan::SourcesMoved(difference).into()),
    };
    let mut worked = Vec::new();
    for (op, step) in makers.into_iter().zip(&open.steps) {
        // BuildKit makes a layer that it merges on an empty state.
        let assembled = match op.digest == *step {
            true => contexts.assemble_layer(&plan.graph, op, &paths),
            false => contexts.assemble_layer(&plan.graph, op, &PathIndex::default()),
        };
        let assembled = match assembled {
            Ok(assembled) => assembled,
            Err(why) => return not(&format!("`{}`: {why}", crate::graph::instruction_of(&op.name))),
        };
        let index = assembled.index(now, &|source, path| content(plan, op, source, path));
        paths.apply(&index);
        worked.push((ComputedLayer { op, assembled }, index));
    }
    Ok(Ok(worked))
}

/// Returns the steps that make the open layers: those on the chain, or those whose layer a merge adds to it (`COPY --link`).
/// Returns `None` if a step merges more than one layer.
pub fn makers<'a>(graph: &'a Graph, open: &Appendable) -> Option<Vec<&'a Op>> {
    let maker = |step: &Digest| {
        let op = graph.op(step)?;
        if op.files().is_some() {
            return Some(op);
        }
        let [_, merged] = &op.inputs[..] else { return None };
        (graph.chain_of(merged).layers() == 1).then(|| graph.op(&merged.step)).flatten()
    };
    open.steps.iter().map(maker).collect()
}
