//! Layers that are worked out here: files of the build context on a base that is not there, without a daemon.
//!
//! Only for steps of which a daemon once made just the layer that had been worked out (`proving`).

use std::collections::HashMap;
use std::io::{self, Write};

use tokio_util::io::SyncIoBridge;

use super::indexing;
use super::job::Job;
use super::kept::Kept;
use super::planning::{Planned, Remembered, seconds_now};
use super::proving::{Contexts, content};
use super::release::{Given, Release, Released};
use super::remembering::Remembering;
use super::solving::broken;
use super::unchanged::composed;
use crate::append::assemble::{Content, Laid, LaidKind, WriteError};
use crate::append::{LayerIndex, PathIndex};
use crate::context::Difference;
use crate::domain::{Descriptor, DiffId, Digest, Hasher, StepKey, media_type};
use crate::error::{Error, Result};
use crate::graph::{Graph, Input, Op, shape};
use crate::plan::{Appendable, Inputs, Layer, ProofRecord, StepRecord, appendable, assemble};
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
    /// Its files are not what they were when they were hashed.
    Moved(Difference),
    /// The store cannot give what it remembers; that was told.
    Failed,
}

/// A step's new layer, worked out.
pub(super) struct Worked<'a> {
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
        if let Some(base) = planned.base_alone().filter(|_| self.is_only_pushed() && !has_epoch) {
            return self.put_base(planned, kept, base).await;
        }
        let Some(open) = appendable(&planned.graph, &planned.plan).filter(|_| self.is_only_pushed() && !has_epoch) else {
            return Ok(Assembled::Not(None));
        };
        let not = |why: &str| Ok(Assembled::Not(Some(why.to_owned())));
        let Some(below) = self.below(planned, &open, records).await? else {
            return not("what the files are laid on is not known");
        };
        let now = seconds_now();
        let worked = match self.work_out(planned, &open, below.paths, records, now).await? {
            Ok(worked) => worked,
            Err(otherwise) => return Ok(otherwise),
        };
        let settings = &self.build.push_settings;
        let keep = kept.target().map(|target| target.repository);
        let release = Release::open(&self.registries, &self.tags, keep.as_ref(), settings, &[], self.events).await?;
        let mut layers = below.layers;
        let mut indexes = Vec::new();
        for (Worked { op, laid }, index) in worked {
            let step = self.events.step(op.name.clone());
            let layer = self.write(planned, op, laid, now, &release).await;
            let layer = match layer {
                Ok(Ok(layer)) => {
                    step.done();
                    layer
                }
                Ok(Err(difference)) => {
                    step.failed(&difference);
                    return Ok(Assembled::Moved(difference));
                }
                Err(error) => {
                    step.failed(&error);
                    return Err(error);
                }
            };
            if !index.holds(self.events.hidden()) {
                indexes.push((indexing::key(&layer.blob.digest, &layer.diff_id), index));
            }
            layers.push(layer);
        }
        release.finish().await?;
        let annotations = self.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let image = assemble(&planned.compiled.config, &layers, &annotations).map_err(|error| broken(&error))?;
        let Some(own) = kept.own() else { return Ok(Assembled::Not(None)) };
        let released = match release.put(composed(image.manifest, image.config)?, own).await? {
            Given::Done(released) => released,
            Given::Not(why) => {
                self.store_gave_not(&why)?;
                return Ok(Assembled::Failed);
            }
        };
        if keep.is_some() {
            let told = kept.records().write(indexes).await;
            if let (Err(error), Some((_, faults))) = (told, self.kept()) {
                faults.tell("did not take this build", &error)?;
            }
        }
        let chain = planned.graph.chain_of(planned.graph.result());
        let base = layers.len().saturating_sub(chain.layers());
        let new = chain.links.iter().filter(|link| open.steps.contains(&link.state.step)).filter_map(|link| {
            let layers = layers.get(..base + link.layers)?.to_vec();
            Some((link.state.clone(), StepRecord { layers, ran: None }))
        });
        Ok(Assembled::Done(released, new.collect()))
    }

    /// Works out the layers of the open steps, on a state with these paths. `now` is the time of what is made on the way, in seconds
    /// of the Unix epoch, as BuildKit gives it the time of the build. Returns why, if that takes a daemon or the context changed.
    pub(super) async fn work_out<'a>(
        &self,
        planned: &'a Planned,
        open: &Appendable,
        mut paths: PathIndex,
        records: &Remembered<'_>,
        now: u64,
    ) -> Result<std::result::Result<Vec<(Worked<'a>, LayerIndex)>, Assembled>> {
        let not = |why: &str| Ok(Err(Assembled::Not(Some(why.to_owned()))));
        let Some(makers) = makers(&planned.graph, open) else { return not("what is merged is more than one layer") };
        let shapes: Option<Vec<StepKey>> = makers.iter().map(|op| shape(&planned.graph, op)).collect();
        let shapes = shapes.unwrap_or_default();
        let proofs = records.read::<ProofRecord>(&shapes).await?;
        if shapes.is_empty() || !shapes.iter().all(|shape| proofs.contains_key(shape)) {
            return not("no daemon was seen to make of such a step what hakobi would make");
        }
        let contexts = match Contexts::read(planned, &makers).await {
            Ok(Some(contexts)) => contexts,
            Ok(None) => return not("the build context cannot be read"),
            Err(difference) => return Ok(Err(Assembled::Moved(difference))),
        };
        let mut worked = Vec::new();
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
            let index = laid.index(now, &|source, path| content(planned, op, source, path));
            paths.apply(&index);
            worked.push((Worked { op, laid }, index));
        }
        Ok(Ok(worked))
    }

    /// Writes a layer, compresses it and sends it on, all at once; or tells which of its files is not what it was.
    async fn write(
        &self,
        planned: &Planned,
        op: &Op,
        laid: Laid,
        now: u64,
        release: &Release,
    ) -> Result<std::result::Result<Layer, Difference>> {
        let failed = |error: &io::Error| Error::build("a layer of files cannot be made").because(error);
        let keyed = keyed(planned, op, &laid);
        let (theirs, ours) = tokio::io::duplex(PIPE);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = Hashing { out: SyncIoBridge::new(ours), hasher: Hasher::default() };
            let mut changed = None;
            let written = laid.write_tar(&mut out, now, &mut |source, path, digest| {
                if keyed.get(&(source, path.to_owned())) != Some(digest) {
                    changed.get_or_insert_with(|| Difference::of_content(path));
                }
            });
            match (changed, written) {
                (Some(difference), _) | (None, Err(WriteError::Moved(difference))) => Ok(Err(difference)),
                (None, Err(WriteError::Out(error))) => Err(error),
                (None, Ok(())) => {
                    out.flush()?;
                    Ok(Ok(out.hasher.diff_id()))
                }
            }
        });
        let compression = self.build.push_settings.compression;
        let spool = release.take_stream(compress(Box::pin(theirs), compression))?;
        let written = writing.await.map_err(io::Error::other).and_then(|written| written).map_err(|error| failed(&error))?;
        let diff_id: DiffId = match written {
            Ok(diff_id) => diff_id,
            Err(difference) => return Ok(Err(difference)),
        };
        let identity = spool.identity().await.map_err(|error| failed(&error))?;
        let media_type = match compression {
            Compression::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Compression::Zstd(_) => media_type::OCI_LAYER_ZSTD,
        };
        let created = jiff::Timestamp::now().to_string();
        Ok(Ok(Layer { blob: Descriptor::new(media_type, identity.digest, identity.size), diff_id, created: Some(created) }))
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
