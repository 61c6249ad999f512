//! Appends: files are laid on a base that does not come down. The daemon's own copier does it, on a skeleton of the base; the layers that
//! come out are those that a build on the whole base would have made, and the image has them on the base's own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use bytes::Bytes;
use serde_json::Map;

use super::assembling::Assembled;
use super::build::{Built, Run};
use super::indexing;
use super::job::Job;
use super::kept::Kept;
use super::planned::Work;
use super::planning::{Planned, Remembered};
use super::release::{Given, Released};
use super::solving::{Attempted, Course, broken, created};
use super::unchanged::composed;
use crate::append::{LayerIndex, Met, Open, Packed, PathIndex, Unsure, packed, reach, skeleton};
use crate::context::{NodeKind, Tree, clean, matches};
use crate::domain::{Descriptor, DiffId, Digest, Platform, Selector, StepKey, is_below, media_type, path_of, spelled_text};
use crate::engine::buildkit::{Gateway, Solved, pb};
use crate::error::{Error, Result};
use crate::graph::{Ground, Input, Op, Taken, Use, uses};
use crate::plan::{Appendable, Layer, StepRecord, appendable, assemble, bare_image, selection};

/// What files are laid on: its layers, which stay where they are, and what is known of its paths.
#[derive(Default)]
pub(super) struct Below {
    pub(super) layers: Vec<Layer>,
    pub(super) paths: PathIndex,
}

/// Why a base comes down of which the paths are not recorded.
const UNKNOWN: &str = "which paths it has is not recorded";

/// What came of trying to append.
pub(super) enum Appended {
    /// The image is there, by the daemon.
    Done(Box<Released>),
    /// The image is there, and no daemon had a part in it.
    Here(Box<Released>, HashMap<Input, StepRecord>),
    /// More is known than before: what is copied was looked at, or the store is left out.
    Again,
    /// The files are laid on the whole base.
    No,
}

impl Run<'_> {
    /// Makes the image without what its new files are laid on, where nothing else has to be done at its end.
    pub(super) async fn append(
        &self,
        built: &mut Built,
        planned: &mut Planned,
        course: &mut Course,
        kept: &Kept,
        records: &Remembered<'_>,
        work: &Work<'_>,
    ) -> Result<Appended> {
        let job = &self.job;
        // What files are sent is not known before they are.
        if !planned.knows_sources() {
            return Ok(Appended::No);
        }
        match job.assemble(planned, kept, records).await? {
            Assembled::Done(released, records) => return Ok(Appended::Here(released, records)),
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
        let Some(below) = job.below(planned, &open, records).await? else {
            built.not_appended(&open.steps[0], UNKNOWN);
            return Ok(Appended::No);
        };
        let wanted = unseen(planned, course, &open);
        if wanted.iter().any(|taken| course.unknown.contains(&taken.place())) {
            return Ok(Appended::No);
        }
        if !wanted.is_empty() {
            self.look_at_all(built, planned, course, kept, records, work, wanted).await?;
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
            graft: self.source(&reference, "[hakobi] what the base has where files are copied to".to_owned()),
        };
        let at = std::time::Instant::now();
        let release = self.open_release(planned, work).await?.ok_or_else(|| Error::push("there is nowhere to push to"))?;
        release.intake().pass_over(&made.layer.blob, &made.layer.diff_id);
        course.take_grafts(self.grafts(planned, kept, None)?, planned);
        let result = planned.graph.result();
        let grafted = planned.graph.grafted_on(result, &course.grafts, &course.given, Some(&ground));
        let grafted = grafted.map_err(|error| broken(&error))?;
        super::planned::tell_places(built, &grafted);
        let (exports, _) = self.exports(Some(&release), work.sinks)?;
        let request = self.request(exports, Vec::new());
        let (definition, config, imports) = (&grafted.definition, &made.image.config, &work.cache.imports);
        let ask = |mut gateway: Gateway| async move {
            let solved = gateway.graph(definition.clone(), imports, false).await?;
            let metadata = [("containerimage.config".to_owned(), without_layers(config))].into();
            Ok(Solved { metadata, ..solved })
        };
        let made = match self.attempt(work, &[&grafted], request, course, Some(&release), ask).await? {
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
        let (new, config) = release.take_layers(&self.docker, self.exit(), made, 1).await?;
        let times = created(&config, new.len() + 1);
        let new = new.into_iter().zip(times.into_iter().skip(1)).map(|(layer, created)| Layer {
            blob: layer.blob.bare(),
            diff_id: layer.diff_id,
            created,
        });
        let layers: Vec<Layer> = below.layers.into_iter().chain(new).collect();
        let annotations = job.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let image = assemble(&planned.compiled.config, &layers, &annotations).map_err(|error| broken(&error))?;
        let released = release.put(composed(image.manifest, image.config)?, own).await?;
        built.report.seconds.push += at.elapsed().as_secs_f64();
        match released {
            Given::Done(released) => Ok(Appended::Done(released)),
            Given::Not(why) => {
                job.store_gave_not(&why)?;
                course.grafts.clear();
                planned.without_records();
                Ok(Appended::Again)
            }
        }
    }
}

impl Job<'_> {
    /// Which step will not be appended, as far as that can be told before anything was copied out of a stage.
    pub(super) async fn not_appended(
        &self,
        planned: &Planned,
        open: &Appendable,
        below: Option<&Below>,
        records: &Remembered<'_>,
    ) -> Result<Option<Stays>> {
        let steps: Vec<&Op> = open.steps.iter().filter_map(|step| planned.graph.op(step)).collect();
        let Some(below) = below else { return Ok(steps.first().map(|op| Stays::new(op, UNKNOWN.to_owned()))) };
        let is_unseen = !unseen(planned, &Course::default(), open).is_empty();
        if open.ground.is_none() || is_unseen || self.work_out(planned, open, below.paths.clone(), records, 0).await?.is_ok() {
            return Ok(None);
        }
        Ok(met(planned, &Looked::new(), &below.paths, &steps).err())
    }

    /// What the open steps are laid on, if all of it is known.
    pub(super) async fn below(&self, planned: &Planned, open: &Appendable, records: &Remembered<'_>) -> Result<Option<Below>> {
        let Some(ground) = &open.ground else { return Ok(Some(Below::default())) };
        let record = match planned.plan.kept.get(ground) {
            Some(record) => Some(record.clone()),
            None => planned.record_of(ground, records).await?,
        };
        let Some(StepRecord { layers, .. }) = record else { return Ok(None) };
        let keys: Vec<StepKey> = layers.iter().map(|layer| indexing::key(&layer.blob.digest, &layer.diff_id)).collect();
        let indexes = records.read::<LayerIndex>(&keys).await?;
        let known: Option<Vec<&LayerIndex>> = keys.iter().map(|key| indexes.get(key)).collect();
        Ok(known.map(|known| Below { paths: PathIndex::of(known), layers }))
    }
}

/// Adds to the reason why a step runs why its base comes down for it.
pub(super) fn tell_not_appended(reason: &mut String, why: &str) {
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    reason.push_str(&format!("its base comes down: {why}"));
}

impl Built {
    /// Says of a step that could have been laid on what is not there why it was not.
    fn not_appended(&mut self, step: &Digest, why: &str) {
        let note = self.notes.get_mut(&step.to_string());
        if let Some(note) = note.filter(|note| !note.reason.contains(why)) {
            tell_not_appended(&mut note.reason, why);
        }
    }
}

/// What the open steps copy out of stages and images, as far as this run has not looked at it.
fn unseen(planned: &Planned, course: &Course, open: &Appendable) -> Vec<Taken> {
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

/// A step that cannot be appended, and why.
pub(super) struct Stays {
    /// The step.
    pub(super) step: Digest,
    instruction: String,
    /// For a person.
    pub(super) why: String,
}

impl Stays {
    fn new(op: &Op, why: String) -> Self {
        Self { step: op.digest.clone(), instruction: crate::graph::instruction_of(&op.name).to_owned(), why }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.instruction, self.why)
    }
}

/// What has been looked at of stages and images.
pub(super) type Looked = HashMap<(Input, Vec<Selector>), Tree>;

/// The paths of a state that these steps, one on the other, can meet; or the first step of which that is not known.
pub(super) fn met(
    planned: &Planned,
    looked: &Looked,
    below: &PathIndex,
    steps: &[&Op],
) -> std::result::Result<BTreeMap<String, Met>, Stays> {
    let mut opens: Vec<Open<'_>> = Vec::new();
    let mut paths = BTreeMap::new();
    for op in steps {
        let stays = |why: Unsure| Stays::new(op, why.to_string());
        opens.extend(opened(planned, looked, op).map_err(stays)?);
        paths = reach(below, &opens).map_err(stays)?;
    }
    Ok(paths)
}

/// A file operation with what it takes. Returns `None` for a merge, which meets nothing.
fn opened<'a>(planned: &'a Planned, looked: &'a Looked, op: &'a Op) -> std::result::Result<Option<Open<'a>>, Unsure> {
    let Some(operation) = op.files() else { return Ok(None) };
    let mut taken = Vec::new();
    for (input, used) in op.inputs.iter().zip(uses(op)) {
        let Use::Content(selectors) = used else { continue };
        let tree: Option<&Tree> = match planned.facts.locals.get(&input.step) {
            Some(local) => local.as_ref().ok().map(|tree| &**tree),
            None => looked.get(&(input.clone(), selectors)),
        };
        taken.extend(tree);
    }
    let mut archives = Vec::new();
    for action in &operation.actions {
        if let Some(pb::file_action::Action::Copy(copy)) = &action.action
            && copy.attempt_unpack_docker_compatibility
        {
            archives.extend(unpacked(planned, op, action.secondary_input, copy)?);
        }
    }
    Ok(Some(Open { operation, taken, packed: archives }))
}

/// The paths of the archives that a copy may unpack.
fn unpacked(planned: &Planned, op: &Op, source: i64, copy: &pb::FileActionCopy) -> std::result::Result<Vec<Packed>, Unsure> {
    let unknown = || Unsure("it may unpack a file that is not in the build context".to_owned());
    let source = usize::try_from(source).ok().and_then(|source| op.inputs.get(source)).ok_or_else(unknown)?;
    let (name, _) = planned.graph.op(&source.step).and_then(selection).ok_or_else(unknown)?;
    let root = planned.directories.get(&name).ok_or_else(unknown)?;
    let Some(Ok(tree)) = planned.facts.locals.get(&source.step) else { return Err(unknown()) };
    let pattern = clean(&format!("/{}", spelled_text(&copy.src)));
    let pattern = &pattern[1..];
    let named = |path: &str| path == pattern || matches(pattern, path) == Some(true);
    // What a link leads to may be any of the files.
    let by_link =
        tree.iter().any(|(path, node)| matches!(node.kind, NodeKind::Link(_)) && (named(&path) || is_below(pattern, &path)));
    let mut out = Vec::new();
    for (path, node) in tree.iter() {
        if let NodeKind::File(keyed) = &node.kind
            && (by_link || named(&path))
        {
            out.extend(packed(&root.join(path_of(&path)), &path, keyed)?);
        }
    }
    Ok(out)
}

/// An image of the skeleton alone.
struct Skeleton {
    image: crate::plan::Assembled,
    layer: Layer,
    blob: Bytes,
}

impl Skeleton {
    fn of(tar: Vec<u8>, platform: &Platform) -> Result<Self> {
        let diff_id = DiffId::of(&tar);
        let blob = Bytes::from(tar);
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(&blob), blob.len() as u64);
        let layer = Layer { blob: descriptor, diff_id, created: None };
        let image = bare_image(platform, std::slice::from_ref(&layer)).map_err(|error| broken(&error))?;
        Ok(Self { image, layer, blob })
    }
}

/// The configuration that the exporter completes: it fills in the layers and their history itself.
fn without_layers(config: &[u8]) -> Vec<u8> {
    let mut config: Map<String, serde_json::Value> = serde_json::from_slice(config).unwrap_or_default();
    config.insert("rootfs".to_owned(), serde_json::json!({ "type": "layers", "diff_ids": [] }));
    config.insert("history".to_owned(), serde_json::json!([]));
    serde_json::to_vec(&config).unwrap_or_default()
}
