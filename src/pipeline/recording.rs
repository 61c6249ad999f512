//! After a planned build: what ran is remembered, layers before what names them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::build::Run;
use super::kept::Kept;
use super::planned::Work;
use super::planning::{Planned, seconds_now};
use super::proving::{Compared, Contexts, Made};
use super::release::Released;
use super::remembering::Remembering;
use super::solving::{Course, broken, created};
use crate::append::{LayerIndex, PathIndex};
use crate::context::Tree;
use crate::domain::{DiffId, Digest, Selector, StepKey};
use crate::error::Result;
use crate::graph::{Graph, Input, Key, Keys, Op, Stage, Taken};
use crate::handover::{Composed, Intake};
use crate::plan::{Inputs, Layer, ProofRecord, StepRecord, TakenRecord};
use crate::push::RepositoryBlobs;
use crate::registry::Source as _;
use crate::save::StageSaver;

/// What is remembered of a build.
pub(super) struct Recording<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) work: &'a Work<'a>,
    pub(super) planned: &'a Planned,
    pub(super) kept: &'a Kept,
}

impl Recording<'_> {
    /// Brings the layers of what ran into the store, and records what they are; `assembled` is what was made without the daemon.
    pub(super) async fn record(
        &self,
        mut course: Course,
        released: &Released,
        inputs: &Inputs,
        assembled: HashMap<Input, StepRecord>,
    ) -> Result<RepositoryBlobs> {
        let faulty = super::cache_fault::<crate::store::Error>;
        self.kept.begin().await.map_err(faulty)?;
        let mut saved = released.kept().await?;
        let [image] = &released.images[..] else { return Ok(saved) };
        if course.ran_again {
            self.run.job.events.note("nothing is remembered of this build: a step ran twice in it");
            return Ok(saved);
        }
        let step = self.run.job.events.step("[hakobi] saving the cache");
        let done = async {
            let (stages, layers, intake) = self.stages(&course, released).await?;
            saved.pushed += layers.pushed;
            saved.bytes += layers.bytes;
            let looked = self.look(&mut course, &stages).await?;
            let keys = &looked.keys;
            let mut records = assembled;
            let intakes: Vec<&Intake> = std::iter::once(released.release.intake()).chain(&intake).collect();
            let seen = Proved { course: &course, keys, intakes: &intakes, trees: Mutex::default() };
            let indexes = self.index(image, &seen).await?;
            let mut proofs = self.chain(self.planned.graph.result(), image, &seen, &indexes, &mut records).await?;
            for (state, image) in &stages {
                proofs.extend(self.chain(state, image, &seen, &indexes, &mut records).await?);
            }
            let record = |state: &Input| records.get(state).or_else(|| self.planned.plan.kept.get(state));
            let taken = looked.taken.into_iter().map(|(key, (content, state))| {
                let chain = record(&state).and_then(StepRecord::chain);
                (key, TakenRecord { content, chain })
            });
            let taken: Vec<_> = taken.collect();
            let made_there = self.run.made_here(self.planned, &course, keys, records.keys(), self.work).await?;
            let build = Remembering { planned: self.planned, kept: self.kept, keys, image, inputs };
            let store = self.kept.records();
            self.run.job.remember(&build, records, taken).await?;
            let made_there = made_there.map(|record| (self.kept.daemon_key(&self.run.info.id), record));
            store.write(made_there).await.map_err(faulty)?;
            store.write(proofs.into_iter().map(|shape| (shape, ProofRecord {}))).await.map_err(faulty)?;
            Ok(saved)
        };
        let done: Result<RepositoryBlobs> = Box::pin(done).await;
        match &done {
            Ok(_) => step.done(),
            Err(error) => step.failed(error),
        }
        done
    }

    /// The stages beside the final one that ran, by their states in the whole graph; what of them was new in the store; and what
    /// took them.
    async fn stages(
        &self,
        course: &Course,
        released: &Released,
    ) -> Result<(Vec<(Input, Composed)>, RepositoryBlobs, Option<Intake>)> {
        let all: Vec<Stage> = self.planned.graph.side_stages();
        let ran = |stage: &&Stage| stage.steps.iter().any(|step| course.ran.contains(&step.digest));
        let new: Vec<&Stage> = all.iter().filter(ran).collect();
        let (Some(to), false) = (self.kept.target(), new.is_empty()) else { return Ok(Default::default()) };
        let intake = released.release.intake_for(&to, &[], &released.images).await?;
        if let Some(own) = self.kept.own() {
            let known = self.planned.plan.kept.values();
            intake.intake.learn(|all| {
                for record in known {
                    all.add_layers(&record.blobs(), &record.diff_ids(), own.repository());
                }
                self.planned.bases.values().for_each(|base| all.add(base));
            });
        }
        let saver = StageSaver {
            docker: &self.run.docker,
            buildkit: &self.run.buildkit,
            session: self.work.session,
            endpoint: &intake.endpoint,
            intake: &intake.intake,
            entitlements: self.run.job.build.entitlements.clone(),
            platform: released.images[0].platform.clone(),
            exit: self.run.way.exit(&self.run.info, false),
        };
        let mut out = Vec::new();
        for (place, stage) in new.into_iter().enumerate() {
            let grafted = self.planned.graph.grafted(&stage.state, &course.grafts, &course.given);
            let graph = grafted.and_then(|grafted| Graph::new(grafted.definition)).map_err(|error| broken(&error))?;
            let renamed = Stage { state: graph.result().clone(), ..stage.clone() };
            out.push((stage.state.clone(), saver.save(&graph, &renamed, place).await?));
        }
        let saved = intake.pusher.finish_blobs().await?.total();
        Ok((out, saved, Some(intake.intake.clone())))
    }

    /// Looks at all that was taken out of stages in this run, and works out the keys by that.
    async fn look(&self, course: &mut Course, stages: &[(Input, Composed)]) -> Result<Looked> {
        let mut facts = self.planned.facts.clone();
        let mut found: HashMap<(Input, Vec<Selector>), Digest> = HashMap::new();
        loop {
            let keys = Keys::of(&self.planned.graph, &facts);
            let mut all = keys.taken().iter();
            let Some(taken) = all.find(|taken| self.is_open(taken, course) && !found.contains_key(&taken.place())).cloned()
            else {
                // Of what BuildKit had in its own cache nobody knows when it ran: it counts for this run's keys only.
                let keepable = |taken: &Taken| {
                    let kept = self.planned.plan.kept.contains_key(&taken.state) || self.is_source(&taken.state);
                    kept || course.ran.contains(&taken.state.step) || stages.iter().any(|(state, _)| *state == taken.state)
                };
                let keep = keys.taken().iter().filter(|taken| keepable(taken));
                let keep = keep
                    .filter_map(|taken| Some((taken.key.clone()?, (found.get(&taken.place())?.clone(), taken.state.clone()))));
                let taken = keep.collect();
                return Ok(Looked { keys, taken });
            };
            let content = match self.run.look_at(self.planned, course, self.work, &taken).await {
                Ok(content) => content,
                Err(error) => {
                    if !self.run.passes_by(course).await {
                        return Err(error);
                    }
                    // What else stands in for something still does.
                    course.take_grafts(self.run.grafts(self.planned, self.kept, None)?, self.planned);
                    continue;
                }
            };
            facts.seen.insert(taken.place(), content.clone());
            found.insert(taken.place(), content);
        }
    }

    /// Whether a state is an image, a file or a repository as it was found: the same each time for its key.
    fn is_source(&self, state: &Input) -> bool {
        self.planned.graph.op(&state.step).is_some_and(|op| op.inputs.is_empty())
    }

    /// Whether a step ran on what is taken, and nobody has looked at just that.
    fn is_open(&self, taken: &Taken, course: &Course) -> bool {
        // What was looked at to decide is known, whatever came of that.
        if course.trees.contains_key(&taken.place()) {
            return true;
        }
        let graph = &self.planned.graph;
        let used = graph.below(graph.result()).into_iter();
        if !used.filter(|op| course.given.contains(&op.digest)).any(|op| op.inputs.contains(&taken.state)) {
            return false;
        }
        let known = taken.key.as_ref().and_then(|key| self.planned.taken.get(key));
        match self.planned.plan.kept.get(&taken.state) {
            Some(record) => known.is_none_or(|taken| taken.chain.is_none() || taken.chain != record.chain()),
            None if self.is_source(&taken.state) => known.is_none(),
            None => true,
        }
    }

    /// The records of the states on a chain, if it adds up: each step one layer, on those of the base, and each layer of files what its
    /// files make. Gives the kinds of step of which the daemon made just the layer that hakobi would have made.
    async fn chain(
        &self,
        state: &Input,
        image: &Composed,
        proved: &Proved<'_>,
        indexes: &HashMap<DiffId, LayerIndex>,
        records: &mut HashMap<Input, StepRecord>,
    ) -> Result<Vec<StepKey>> {
        let mut proofs = Vec::new();
        let chain = self.planned.graph.chain_of(state);
        let base: Vec<DiffId> = match &chain.base {
            None => Vec::new(),
            Some(base) => match self.planned.facts.images.get(&base.step) {
                Some(Ok(layers)) => layers.clone(),
                _ => return Ok(proofs),
            },
        };
        if image.diff_ids.len() != base.len() + chain.layers() || !image.diff_ids.starts_with(&base) {
            self.run.job.events.note(format!(
                "nothing is remembered of a stage: {} layers came of {} steps on {}",
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
        // What the chain lies on is laid on without being there, when the first of its steps is files alone.
        if let Some(base) = &chain.base {
            records.insert(base.clone(), StepRecord { layers: layers[..base_layers].to_vec(), ran: None });
        }
        let now = seconds_now();
        let makers: Vec<&Op> = chain.links.iter().filter_map(|link| self.planned.graph.op(&link.made_by)).collect();
        let contexts = Contexts::hashed(self.planned, &makers);
        let known = |layers: &[DiffId]| layers.iter().map(|layer| indexes.get(layer)).collect::<Option<Vec<_>>>();
        let nothing = PathIndex::default();
        // Only the paths of the final image's layers are known.
        let mut below = known(&image.diff_ids[..base_layers]).map(PathIndex::of);
        for link in &chain.links {
            let place = (base_layers + link.layers).saturating_sub(1);
            let made = self.planned.graph.op(&link.made_by).filter(|_| place < layers.len());
            // What was kept is as it was recorded.
            if proved.course.given.contains(&link.state.step) {
                if let Some(op) = made {
                    // What is merged was made on nothing.
                    let below = if op.digest == link.state.step { below.as_ref() } else { Some(&nothing) };
                    match self.compared(Made { op, image, place, below }, contexts.as_ref(), indexes, proved).await? {
                        Compared::Same(shape) => proofs.extend(shape),
                        Compared::Unknown => {}
                        Compared::Other(what) => {
                            self.run.job.events.warning(format!(
                                "`{}` is not saved, nor is what is built on it: the daemon's layer is not what its files make ({what})",
                                crate::graph::instruction_of(&op.name)
                            ));
                            return Ok(proofs);
                        }
                    }
                }
                let layers = &layers[..base_layers + link.layers];
                if let Key::Known(_) = proved.keys.state(&link.state) {
                    let ran = proved.course.ran.contains(&link.state.step).then_some(now);
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
}

/// What records are held against.
pub(super) struct Proved<'a> {
    pub(super) course: &'a Course,
    keys: &'a Keys,
    /// What took layers from the daemon.
    pub(super) intakes: &'a [&'a Intake],
    /// The files of layers that were read already.
    pub(super) trees: Mutex<HashMap<Digest, Arc<Tree>>>,
}

/// What was looked at after a build.
struct Looked {
    keys: Keys,
    /// What is remembered of what was taken out of stages, with the state that it is of.
    taken: HashMap<StepKey, (Digest, Input)>,
}
