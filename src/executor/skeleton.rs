//! Appends files to a base image that the daemon does not pull. The daemon's own copier copies them onto a skeleton of the base
//! image. The new layers are the same as in a build on the whole base image. The image has them on the base image's own layers.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Map;

use crate::cache::record_reader::RecordReader;
use crate::domain::{Descriptor, DiffId, Digest, Platform, Selector, media_type};
use crate::engine::buildkit::{Gateway, Solved};
use crate::error::{Error, Result};
use crate::executor::append_base::{self, AppendBase};
use crate::executor::execution::{Execution, Halt, OrHalt};
use crate::executor::graph_errors::{broken, created};
use crate::executor::pending::{NotAppended, ObservedTrees, touched_paths};
use crate::executor::progress::SolveProgress;
use crate::executor::refused::replan_after;
use crate::executor::reuse::{composed, image_of};
use crate::executor::{assemble, request, rounds, solve, substitutions};
use crate::graph::{BaseSubstitution, CopySource, Input, InputDependency, Op, input_dependencies};
use crate::layers::skeleton;
use crate::plan::{Appendable, Layer, appendable, bare_image};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::{PutOutcome, Released};

/// The reason to pull a base image whose paths are not recorded.
pub const PATHS_UNKNOWN: &str = "the cache has no path index for it";

/// Makes the image without the state below its new files, if the last steps only add files. Returns `None` if other steps are open,
/// or hakobi does not know which paths the files touch.
pub async fn append(execution: &Execution<'_>, plan: &BuildPlan, progress: &mut SolveProgress) -> OrHalt<Option<Box<Released>>> {
    let Execution { daemon, cache, ref records, .. } = *execution;
    let context = &daemon.context;
    let Some(open) = appendable(&plan.graph, &plan.decision).filter(|_| context.is_only_pushed()) else {
        return Ok(None);
    };
    // A build from scratch has no base image to pull.
    let Some(base_state) = open.base_state.clone() else { return Ok(None) };
    let Some(below) = append_base::known_base(plan, &open, records).await? else {
        progress.not_appended(&open.steps[0], PATHS_UNKNOWN);
        return Ok(None);
    };
    let wanted = unobserved(plan, progress, &open);
    if wanted.iter().any(|copied| progress.unknown.contains(&copied.place())) {
        return Ok(None);
    }
    if !wanted.is_empty() {
        return Err(Replan::Observed(rounds::observe_all(execution, plan, progress, wanted).await?).into());
    }
    let operations: Vec<&Op> = open.steps.iter().filter_map(|step| plan.graph.op(step)).collect();
    let paths = match touched_paths(plan, &progress.trees, &below.paths, &operations) {
        Ok(paths) => paths,
        Err(stays) => {
            if progress.not_appended(&stays.step, &stays.why) {
                context.events.note(format!("pulling the base image: cannot append {stays}"));
            }
            return Ok(None);
        }
    };
    let made = Skeleton::new(skeleton(&paths).map_err(|error| broken(&error))?, &plan.platform()?)?;
    let Some(own) = cache.own() else { return Ok(None) };
    let reference = own.offer_made(&made.image.manifest, made.image.config.clone(), made.blob.clone());
    let base_state = BaseSubstitution {
        step: open.steps[0].clone(),
        state: base_state,
        substitution: substitutions::source(daemon, &reference, "[hakobi] reading the base's paths".to_owned()),
    };
    let at = Instant::now();
    let release = request::open_release(execution, plan).await?.ok_or_else(|| Error::push("no repository to push to"))?;
    release.intake().pass_over(&made.layer.blob, &made.layer.diff_id);
    progress.take_substitutions(substitutions::of_plan(execution, plan, None)?, plan);
    let result = plan.graph.result();
    let rewritten = plan.graph.rewritten_on(result, &progress.substitutions, &progress.solved, Some(&base_state));
    let rewritten = rewritten.map_err(|error| broken(&error))?;
    progress.locate(&rewritten);
    let (exports, _) = request::exports(daemon, Some(&release), execution.sinks)?;
    let request = request::request(daemon, exports, Vec::new());
    let (definition, config, imports) = (&rewritten.definition, &made.image.config, &execution.imports.imports);
    let ask = |mut gateway: Gateway| async move {
        let solved = gateway.graph(definition.clone(), imports, false).await?;
        let metadata = [("containerimage.config".to_owned(), without_layers(config))].into();
        Ok(Solved { metadata, ..solved })
    };
    let solved = solve::attempt(execution, &[&rewritten], request, progress, Some(&release), ask).await;
    progress.spent.build += at.elapsed().as_secs_f64();
    let made = solved?.made();
    let at = Instant::now();
    let (new, config) = release.take_layers(&daemon.docker, daemon.exit(), made, 1).await?;
    let times = created(&config, new.len() + 1);
    let new = new.into_iter().zip(times.into_iter().skip(1)).map(|(layer, created)| Layer {
        blob: layer.blob.bare(),
        diff_id: layer.diff_id,
        created,
    });
    let layers: Vec<Layer> = below.layers.into_iter().chain(new).collect();
    let image = image_of(context, plan, &layers).map_err(|error| broken(&error))?;
    let released = release.put(composed(image.manifest, image.config)?, own).await?;
    progress.spent.push += at.elapsed().as_secs_f64();
    match released {
        PutOutcome::Done(released) => Ok(Some(released)),
        PutOutcome::Not(why) => Err(replan_after(&why, context, plan, execution.cache, &execution.records).await?.into()),
    }
}

/// Returns the first step that hakobi will not append, as far as this is known before a stage is looked at. Returns `None` if there
/// is none.
pub async fn not_appended(
    plan: &BuildPlan,
    open: &Appendable,
    below: Option<&AppendBase>,
    records: &RecordReader<'_>,
) -> Result<Option<NotAppended>> {
    let steps: Vec<&Op> = open.steps.iter().filter_map(|step| plan.graph.op(step)).collect();
    let Some(below) = below else { return Ok(steps.first().map(|op| NotAppended::new(op, PATHS_UNKNOWN.to_owned()))) };
    let is_unobserved = !unobserved(plan, &SolveProgress::default(), open).is_empty();
    if open.base_state.is_none() || is_unobserved {
        return Ok(None);
    }
    match assemble::compute_layers(plan, open, below.paths.clone(), records, 0).await {
        Ok(Ok(_)) => return Ok(None),
        Err(Halt::Failed(error)) => return Err(error),
        Ok(Err(_)) | Err(Halt::Replan(_)) => {}
    }
    Ok(touched_paths(plan, &ObservedTrees::new(), &below.paths, &steps).err())
}

/// Returns the files that the open steps copy out of stages and images and that this run has not looked at yet.
pub fn unobserved(plan: &BuildPlan, progress: &SolveProgress, open: &Appendable) -> Vec<CopySource> {
    let mut places: HashSet<(Input, Vec<Selector>)> = HashSet::new();
    for op in open.steps.iter().filter_map(|step| plan.graph.op(step)) {
        places.extend(op.inputs.iter().zip(input_dependencies(op)).filter_map(|(input, used)| match used {
            InputDependency::Content(selectors) if !plan.facts.locals.contains_key(&input.step) => {
                Some((input.clone(), selectors))
            }
            _ => None,
        }));
    }
    places.retain(|place| !progress.trees.contains_key(place));
    plan.keys.copy_sources().iter().filter(|copied| places.contains(&copied.place())).cloned().collect()
}

/// An image of the skeleton alone.
pub struct Skeleton {
    pub image: crate::plan::Assembled,
    pub layer: Layer,
    pub blob: Bytes,
}

impl Skeleton {
    pub fn new(tar: Vec<u8>, platform: &Platform) -> Result<Self> {
        let diff_id = DiffId::hash(&tar);
        let blob = Bytes::from(tar);
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::hash(&blob), blob.len() as u64);
        let layer = Layer { blob: descriptor, diff_id, created: None };
        let image = bare_image(platform, std::slice::from_ref(&layer)).map_err(|error| broken(&error))?;
        Ok(Self { image, layer, blob })
    }
}

/// Returns the configuration without layers and history: the exporter fills these in itself.
pub fn without_layers(config: &[u8]) -> Vec<u8> {
    let mut config: Map<String, serde_json::Value> = serde_json::from_slice(config).unwrap_or_default();
    config.insert("rootfs".to_owned(), serde_json::json!({ "type": "layers", "diff_ids": [] }));
    config.insert("history".to_owned(), serde_json::json!([]));
    serde_json::to_vec(&config).unwrap_or_default()
}
