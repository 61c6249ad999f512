//! Layers that are worked out here: files of the build context on a base that is not there, without a daemon.
//!
//! Only for steps of which a daemon once made just the layer that had been worked out (`prove`).

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::PathBuf;

use tokio_util::io::SyncIoBridge;

use super::indexing;
use super::job::Job;
use super::kept::Kept;
use super::planning::{Planned, Remembered, seconds_now};
use super::recording::{Proved, Recording};
use super::release::{Release, Released};
use super::remembering::Remembering;
use super::solving::broken;
use super::unchanged::composed;
use crate::append::assemble::{Content, Files, Laid, LaidKind, Laying, Source, lay};
use crate::append::{LayerIndex, PathIndex};
use crate::context::{Entry, NodeKind, walk};
use crate::domain::{Descriptor, DiffId, Digest, Hasher, StepKey, media_type};
use crate::error::{Error, Result};
use crate::graph::{Graph, Input, Op, shape};
use crate::handover::Composed;
use crate::plan::{Appendable, Inputs, Layer, ProofRecord, StepRecord, appendable, assemble, selection};
use crate::settings::Compression;
use crate::transfer::BlobSource as _;
use crate::transfer::compress::compress;

/// Bytes between who writes a tar and who compresses it.
const PIPE: usize = 1 << 20;

/// What came of assembling an image.
pub(super) enum Assembled {
    /// It is there, with the records of its new states.
    Done(Box<Released>, HashMap<Input, StepRecord>),
    /// It takes a daemon, and why, where that is not just that a command has to run.
    Not(Option<String>),
    /// The store cannot give what it remembers; that was told.
    Failed,
}

/// The files that a build's contexts send, by the steps that stand for these.
pub(super) struct Contexts(HashMap<Digest, (PathBuf, Vec<Entry>)>);

impl Contexts {
    /// Those that these steps take from; nothing where one of them cannot be read.
    async fn of(planned: &Planned, steps: &[&Op]) -> Option<Self> {
        let mut contexts = HashMap::new();
        for input in steps.iter().flat_map(|op| &op.inputs) {
            let source = planned.graph.op(&input.step).filter(|op| !contexts.contains_key(&op.digest));
            let Some((op, (name, selection))) = source.and_then(|op| Some((op, selection(op)?))) else { continue };
            let root = planned.directories.get(&name)?.to_owned();
            let from = root.clone();
            let walked = tokio::task::spawn_blocking(move || {
                let mut entries = Vec::new();
                let done = walk(&from, &selection, &mut |entry| {
                    entries.push(entry);
                    true
                });
                done.map(|()| entries)
            });
            contexts.insert(op.digest.clone(), (root, walked.await.ok()?.ok()?));
        }
        Some(Self(contexts))
    }

    /// The layer of a step on a state.
    fn lay(&self, graph: &Graph, op: &Op, below: &PathIndex) -> std::result::Result<Laid, Laying> {
        let nothing = PathIndex::default();
        // The files of heredocs are made on nothing, and copied from there.
        let mut made: BTreeMap<usize, Laid> = BTreeMap::new();
        for (place, input) in op.inputs.iter().enumerate() {
            if let Some(source) = graph.op(&input.step).filter(|op| op.inputs.is_empty() && op.files().is_some()) {
                made.insert(place, lay(&source.op, &nothing, &|_| None)?);
            }
        }
        lay(&op.op, below, &|place| {
            if let Some(made) = made.get(&place) {
                return Some(Source::Made(made));
            }
            let (root, entries) = self.0.get(&op.inputs.get(place)?.step)?;
            Some(Source::Files(Files { root, entries }))
        })
    }
}

/// A step's new layer, worked out.
struct Worked<'a> {
    /// The step that makes it.
    op: &'a Op,
    laid: Laid,
}

impl Job<'_> {
    /// Makes the image with layers that are worked out here, where it ends with files of the build context alone and is only to be
    /// pushed.
    pub(super) async fn assemble(&self, planned: &Planned, kept: &Kept, records: &Remembered<'_>) -> Result<Assembled> {
        // Times in the image would have to be that one.
        let has_epoch = self.build.build_args.iter().any(|(name, _)| name == "SOURCE_DATE_EPOCH");
        let Some(open) = appendable(&planned.graph, &planned.plan).filter(|_| self.is_only_pushed() && !has_epoch) else {
            return Ok(Assembled::Not(None));
        };
        let not = |why: &str| Ok(Assembled::Not(Some(why.to_owned())));
        let Some(below) = self.below(planned, &open, records).await? else {
            return not("what the files are laid on is not known");
        };
        let Some(makers) = makers(&planned.graph, &open) else { return not("what is merged is more than one layer") };
        let shapes: Option<Vec<StepKey>> = makers.iter().map(|op| shape(&planned.graph, op)).collect();
        let shapes = shapes.unwrap_or_default();
        let proofs = records.read::<ProofRecord>(&shapes).await?;
        if shapes.is_empty() || !shapes.iter().all(|shape| proofs.contains_key(shape)) {
            return not("no daemon was seen to make of such a step what hakobi would make");
        }
        let Some(contexts) = Contexts::of(planned, &makers).await else { return not("the build context cannot be read") };
        let mut paths = below.paths;
        // What is made on the way has the time of the build, as in a layer that BuildKit makes.
        let now = seconds_now();
        let mut worked: Vec<(Worked<'_>, LayerIndex)> = Vec::new();
        for (op, step) in makers.into_iter().zip(&open.steps) {
            // What is merged was made on nothing.
            let laid = match op.digest == *step {
                true => contexts.lay(&planned.graph, op, &paths),
                false => contexts.lay(&planned.graph, op, &PathIndex::default()),
            };
            let laid = match laid {
                Ok(laid) => laid,
                Err(why) => return not(&format!("`{}`: {why}", crate::graph::instruction_of(&op.name))),
            };
            let index = laid.index(now);
            paths.apply(&index);
            worked.push((Worked { op, laid }, index));
        }
        let settings = &self.build.push_settings;
        let keep = kept.target().map(|target| target.repository);
        let release = Release::open(&self.registries, &self.tags, keep.as_ref(), settings, &[], self.events).await?;
        let mut layers = below.layers;
        let mut indexes = Vec::new();
        for (Worked { op, laid }, index) in worked {
            let step = self.events.step(op.name.clone());
            let layer = self.write(planned, op, laid, now, &release).await;
            match &layer {
                Ok(_) => step.done(),
                Err(error) => step.failed(error),
            }
            let layer = layer?;
            indexes.push((indexing::key(&layer.diff_id), index));
            layers.push(layer);
        }
        release.finish().await?;
        let annotations = self.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let image = assemble(&planned.compiled.config, &layers, &annotations).map_err(|error| broken(&error))?;
        let Some(own) = kept.own() else { return Ok(Assembled::Not(None)) };
        let put = release.put(composed(image.manifest, image.config)?, own).await;
        let released = match put {
            Ok(Some(released)) => released,
            Ok(None) => {
                self.store_lacks_layers()?;
                return Ok(Assembled::Failed);
            }
            Err(_) if !kept.damaged().is_empty() => {
                self.store_failed("", None)?;
                return Ok(Assembled::Failed);
            }
            Err(error) => return Err(error),
        };
        if keep.is_some() {
            let told = kept.records().write(indexes).await;
            if let (Err(error), Some((_, faults))) = (told, self.kept()) {
                faults.tell("did not take this build", &error)?;
            }
        }
        let chain = planned.graph.chain_of(planned.graph.result());
        let base = layers.len().saturating_sub(chain.layers());
        let new = chain.links.iter().filter(|link| open.steps.contains(&link.state.step)).map(|link| {
            let layers = layers[..base + link.layers].to_vec();
            (link.state.clone(), StepRecord { layers, ran: None })
        });
        Ok(Assembled::Done(Box::new(released), new.collect()))
    }

    /// Writes a layer, compresses it and sends it on, all at once.
    async fn write(&self, planned: &Planned, op: &Op, laid: Laid, now: u64, release: &Release) -> Result<Layer> {
        let failed = |error: &io::Error| Error::build("a layer of files cannot be made").because(error);
        let keyed = keyed(planned, op, &laid);
        let (theirs, ours) = tokio::io::duplex(PIPE);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = Hashing { out: SyncIoBridge::new(ours), hasher: Hasher::default() };
            let mut changed = None;
            laid.write_tar(&mut out, now, &mut |source, path, digest| {
                if keyed.get(&(source, path.to_owned())) != Some(digest) {
                    changed = Some(path.to_owned());
                }
            })?;
            out.flush()?;
            match changed {
                Some(path) => {
                    Err(io::Error::other(format!("{path} changes while it is read: something writes into the build context")))
                }
                None => Ok(out.hasher.diff_id()),
            }
        });
        let compression = self.build.push_settings.compression;
        let spool = release.take_stream(compress(Box::pin(theirs), compression))?;
        let diff_id: DiffId =
            writing.await.map_err(io::Error::other).and_then(|written| written).map_err(|error| failed(&error))?;
        let identity = spool.identity().await.map_err(|error| failed(&error))?;
        let media_type = match compression {
            Compression::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Compression::Zstd(_) => media_type::OCI_LAYER_ZSTD,
        };
        let created = jiff::Timestamp::now().to_string();
        Ok(Layer { blob: Descriptor::new(media_type, identity.digest, identity.size), diff_id, created: Some(created) })
    }

    /// Remembers an image that was assembled.
    pub(super) async fn remember_assembled(
        &self,
        planned: &Planned,
        kept: &Kept,
        released: &Released,
        records: HashMap<Input, StepRecord>,
        inputs: &Inputs,
    ) -> Result<crate::push::RepositoryBlobs> {
        if kept.target().is_none() {
            return released.kept().await;
        }
        // What says what the store is may have gone, by a lifecycle rule.
        kept.begin().await.map_err(super::cache_fault)?;
        let saved = released.kept().await?;
        if let [image] = &released.images[..] {
            let build = Remembering { planned, kept, keys: &planned.keys, image, inputs };
            self.remember(&build, records, Vec::new()).await?;
        }
        Ok(saved)
    }
}

/// The steps that make the open layers: those on the chain, or those whose layer is merged into it (`COPY --link`).
fn makers<'a>(graph: &'a Graph, open: &Appendable) -> Option<Vec<&'a Op>> {
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

/// The digests by which a layer's files were keyed, by the number of the input and the path.
fn keyed(planned: &Planned, op: &Op, laid: &Laid) -> HashMap<(usize, String), Digest> {
    let files = laid.entries().filter_map(|(_, entry)| match &entry.kind {
        LaidKind::File(Content::Context { source, path, .. }) => Some((*source, path)),
        _ => None,
    });
    files.filter_map(|(source, path)| Some(((source, path.clone()), content(planned, op, source, path)?))).collect()
}

/// The digest that a file of an input was keyed by.
fn content(planned: &Planned, op: &Op, source: usize, path: &str) -> Option<Digest> {
    let Some(Ok(tree)) = planned.facts.locals.get(&op.inputs.get(source)?.step) else { return None };
    match &tree.get(path)?.kind {
        NodeKind::File(content) => Some(content.clone()),
        _ => None,
    }
}

/// Bytes that are hashed as they pass.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Recording<'_> {
    /// Holds the layers that the daemon made of files against what hakobi would have made; gives the steps where it is the same, which
    /// can do without a daemon from then on. Of others it is said what differs.
    pub(super) async fn prove(
        &self,
        image: &Composed,
        proved: &Proved<'_>,
        records: &HashMap<Input, StepRecord>,
        indexes: &HashMap<DiffId, LayerIndex>,
    ) -> Result<Vec<StepKey>> {
        let graph = &self.planned.graph;
        let chain = graph.chain_of(graph.result());
        let mut proofs = Vec::new();
        let Some(base) = image.diff_ids.len().checked_sub(chain.layers()) else { return Ok(proofs) };
        let makers: Vec<&Op> = chain.links.iter().filter_map(|link| graph.op(&link.made_by)).collect();
        let Some(contexts) = Contexts::of(self.planned, &makers).await else { return Ok(proofs) };
        let mut paths = PathIndex::default();
        for diff_id in &image.diff_ids[..base] {
            let Some(index) = indexes.get(diff_id) else { return Ok(proofs) };
            paths.apply(index);
        }
        for (link, op) in chain.links.iter().zip(makers) {
            let place = base + link.layers - 1;
            let Some(index) = image.diff_ids.get(place).and_then(|diff_id| indexes.get(diff_id)) else { return Ok(proofs) };
            if op.files().is_some() && proved.course.given.contains(&link.state.step) && records.contains_key(&link.state) {
                let on_the_chain = op.digest == link.state.step;
                let nothing = PathIndex::default();
                let laid = contexts.lay(graph, op, if on_the_chain { &paths } else { &nothing });
                if let (Ok(laid), Some(layer)) = (laid, self.tree(&image.layers[place], proved).await?) {
                    match laid.differs(&layer, &|source, path| content(self.planned, op, source, path)) {
                        None => proofs.extend(shape(graph, op)),
                        Some(what) => self.run.job.events.note(format!(
                            "`{}` is left to the daemon, which makes another layer of it than hakobi would: {what}",
                            crate::graph::instruction_of(&op.name)
                        )),
                    }
                }
            }
            paths.apply(index);
        }
        Ok(proofs)
    }
}
