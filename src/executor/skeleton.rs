//! Appends: files are laid on a base that does not come down. The daemon's own copier does it, on a skeleton of the base; the layers that
//! come out are those that a build on the whole base would have made, and the image has them on the base's own.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::Map;

use crate::append::skeleton;
use crate::cache::record_reader::Remembered;
use crate::cache::session::Kept;
use crate::domain::{Descriptor, DiffId, Digest, Platform, Selector, media_type};
use crate::engine::buildkit::{Gateway, Solved};
use crate::error::{Error, Result};
use crate::executor::append_base::{self, Below};
use crate::executor::assembled::{Assembled, NewLayers};
use crate::executor::graph_errors::{broken, created};
use crate::executor::pending::{Looked, Stays, met};
use crate::executor::progress::SolveProgress;
use crate::executor::reuse::composed;
use crate::executor::rounds::{self, tell_places};
use crate::executor::solve::{self, Attempted};
use crate::executor::{assemble, request, substitutions};
use crate::graph::{Ground, Input, Op, Taken, Use, uses};
use crate::plan::{Appendable, Layer, appendable, bare_image};
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::{Given, Released};
use crate::run::built::Built;
use crate::run::context::BuildContext;
use crate::run::daemon::DaemonBuild;
use crate::run::work::Work;

/// Why a base comes down of which the paths are not recorded.
pub const UNKNOWN: &str = "which paths it has is not recorded";

/// What came of trying to append.
pub enum Appended {
    /// The image is there, by the daemon.
    Done(Box<Released>),
    /// The image is there, and no daemon had a part in it.
    Here(Box<Released>, NewLayers),
    /// More is known than before: what is copied was looked at, or the store is left out.
    Again,
    /// The files are laid on the whole base.
    No,
}

/// Makes the image without what its new files are laid on, where nothing else has to be done at its end.
pub async fn append(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    planned: &mut BuildPlan,
    course: &mut SolveProgress,
    kept: &Kept,
    records: &Remembered<'_>,
    work: &Work<'_>,
) -> Result<Appended> {
    let job = &daemon.job;
    // What files are sent is not known before they are.
    if !planned.knows_sources() {
        return Ok(Appended::No);
    }
    match assemble::assemble(job, planned, kept, records).await? {
        Assembled::Done(released, new) => return Ok(Appended::Here(released, new)),
        Assembled::Moved(difference) => {
            work.session.tell_moved(&difference);
            return Err(Error::build(format!("the build context changed while it was read: {difference}")));
        }
        Assembled::Failed => {
            planned.without_records();
            return Ok(Appended::Again);
        }
        Assembled::Not(_) => {}
    }
    let Some(open) = appendable(&planned.graph, &planned.plan).filter(|_| job.is_only_pushed()) else {
        return Ok(Appended::No);
    };
    // On nothing there is nothing that could come down.
    let Some(ground) = open.ground.clone() else { return Ok(Appended::No) };
    let Some(below) = append_base::below(job, planned, &open, records).await? else {
        built.not_appended(&open.steps[0], UNKNOWN);
        return Ok(Appended::No);
    };
    let wanted = unseen(planned, course, &open);
    if wanted.iter().any(|taken| course.unknown.contains(&taken.place())) {
        return Ok(Appended::No);
    }
    if !wanted.is_empty() {
        rounds::look_at_all(daemon, built, planned, course, kept, records, work, wanted).await?;
        return Ok(Appended::Again);
    }
    let operations: Vec<&Op> = open.steps.iter().filter_map(|step| planned.graph.op(step)).collect();
    let paths = match met(planned, &course.trees, &below.paths, &operations) {
        Ok(paths) => paths,
        Err(stays) => {
            job.events.note(format!("pulling the base image: cannot append {stays}"));
            built.not_appended(&stays.step, &stays.why);
            return Ok(Appended::No);
        }
    };
    let made = Skeleton::of(skeleton(&paths).map_err(|error| broken(&error))?, &planned.platform()?)?;
    let Some(own) = kept.own() else { return Ok(Appended::No) };
    let reference = own.offer_made(&made.image.manifest, made.image.config.clone(), made.blob.clone());
    let ground = Ground {
        step: open.steps[0].clone(),
        state: ground,
        graft: substitutions::source(daemon, &reference, "[hakobi] what the base has where files are copied to".to_owned()),
    };
    let at = std::time::Instant::now();
    let release =
        request::open_release(daemon, planned, work).await?.ok_or_else(|| Error::push("there is nowhere to push to"))?;
    release.intake().pass_over(&made.layer.blob, &made.layer.diff_id);
    course.take_grafts(substitutions::grafts(daemon, planned, kept, None)?, planned);
    let result = planned.graph.result();
    let grafted = planned.graph.grafted_on(result, &course.grafts, &course.given, Some(&ground));
    let grafted = grafted.map_err(|error| broken(&error))?;
    tell_places(built, &grafted);
    let (exports, _) = request::exports(daemon, Some(&release), work.sinks)?;
    let request = request::request(daemon, exports, Vec::new());
    let (definition, config, imports) = (&grafted.definition, &made.image.config, &work.cache.imports);
    let ask = |mut gateway: Gateway| async move {
        let solved = gateway.graph(definition.clone(), imports, false).await?;
        let metadata = [("containerimage.config".to_owned(), without_layers(config))].into();
        Ok(Solved { metadata, ..solved })
    };
    let made = match solve::attempt(daemon, work, &[&grafted], request, course, Some(&release), ask).await? {
        Attempted::Done(solved) => solved.made(),
        Attempted::WithoutStore => {
            planned.without_records();
            return Ok(Appended::Again);
        }
        Attempted::Moved => {
            planned.without_pins();
            return Ok(Appended::Again);
        }
        Attempted::Otherwise => return Ok(Appended::Again),
    };
    built.report.seconds.build += at.elapsed().as_secs_f64();
    let at = std::time::Instant::now();
    let (new, config) = release.take_layers(&daemon.docker, daemon.exit(), made, 1).await?;
    let times = created(&config, new.len() + 1);
    let new = new.into_iter().zip(times.into_iter().skip(1)).map(|(layer, created)| Layer {
        blob: layer.blob.bare(),
        diff_id: layer.diff_id,
        created,
    });
    let layers: Vec<Layer> = below.layers.into_iter().chain(new).collect();
    let annotations = job.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
    let image = crate::plan::assemble(&planned.compiled.config, &layers, &annotations).map_err(|error| broken(&error))?;
    let released = release.put(composed(image.manifest, image.config)?, own).await?;
    built.report.seconds.push += at.elapsed().as_secs_f64();
    match released {
        Given::Done(released) => Ok(Appended::Done(released)),
        Given::Not(why) => {
            job.cache.store_gave_not(&why)?;
            course.grafts.clear();
            planned.without_records();
            Ok(Appended::Again)
        }
    }
}

/// Which step will not be appended, as far as that can be told before anything was copied out of a stage.
pub async fn not_appended(
    _context: &BuildContext<'_>,
    planned: &BuildPlan,
    open: &Appendable,
    below: Option<&Below>,
    records: &Remembered<'_>,
) -> Result<Option<Stays>> {
    let steps: Vec<&Op> = open.steps.iter().filter_map(|step| planned.graph.op(step)).collect();
    let Some(below) = below else { return Ok(steps.first().map(|op| Stays::new(op, UNKNOWN.to_owned()))) };
    let is_unseen = !unseen(planned, &SolveProgress::default(), open).is_empty();
    if open.ground.is_none() || is_unseen || assemble::work_out(planned, open, below.paths.clone(), records, 0).await?.is_ok() {
        return Ok(None);
    }
    Ok(met(planned, &Looked::new(), &below.paths, &steps).err())
}

/// What the open steps copy out of stages and images, as far as this run has not looked at it.
pub fn unseen(planned: &BuildPlan, course: &SolveProgress, open: &Appendable) -> Vec<Taken> {
    let mut places: HashSet<(Input, Vec<Selector>)> = HashSet::new();
    for op in open.steps.iter().filter_map(|step| planned.graph.op(step)) {
        places.extend(op.inputs.iter().zip(uses(op)).filter_map(|(input, used)| match used {
            Use::Content(selectors) if !planned.facts.locals.contains_key(&input.step) => Some((input.clone(), selectors)),
            _ => None,
        }));
    }
    places.retain(|place| !course.trees.contains_key(place));
    planned.keys.taken().iter().filter(|taken| places.contains(&taken.place())).cloned().collect()
}

/// An image of the skeleton alone.
pub struct Skeleton {
    pub image: crate::plan::Assembled,
    pub layer: Layer,
    pub blob: Bytes,
}

impl Skeleton {
    pub fn of(tar: Vec<u8>, platform: &Platform) -> Result<Self> {
        let diff_id = DiffId::of(&tar);
        let blob = Bytes::from(tar);
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(&blob), blob.len() as u64);
        let layer = Layer { blob: descriptor, diff_id, created: None };
        let image = bare_image(platform, std::slice::from_ref(&layer)).map_err(|error| broken(&error))?;
        Ok(Self { image, layer, blob })
    }
}

/// The configuration that the exporter completes: it fills in the layers and their history itself.
pub fn without_layers(config: &[u8]) -> Vec<u8> {
    let mut config: Map<String, serde_json::Value> = serde_json::from_slice(config).unwrap_or_default();
    config.insert("rootfs".to_owned(), serde_json::json!({ "type": "layers", "diff_ids": [] }));
    config.insert("history".to_owned(), serde_json::json!([]));
    serde_json::to_vec(&config).unwrap_or_default()
}
