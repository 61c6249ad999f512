//! After a planned build: what ran is remembered, layers before what names them.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::io::SyncIoBridge;

use super::build::Run;
use super::kept::Kept;
use super::planning::Planned;
use super::release::Released;
use crate::context::Tree;
use crate::domain::{Descriptor, DiffId, Digest, Selector, StepKey};
use crate::engine::buildkit::{Export, Outputs, Session, SolveRequest};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::graph::{Grafted, Graph, Input, Key, Keys, Op, Stage, Taken};
use crate::handover::{Composed, Intake};
use crate::plan::{Allowed, ImageRecord, Inputs, Layer, StepRecord, TakenRecord, Verdict, allowed, stray};
use crate::push::RepositoryBlobs;
use crate::registry::{Home as _, Source as _};
use crate::save::{Executed, StageSaver, stages_to_save};
use crate::transfer::compress::plain;

/// Bytes between the daemon's stream and who reads it.
const PIPE: usize = 1 << 20;

/// What is remembered of a build.
pub(super) struct Recording<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) session: &'a Session,
    pub(super) sinks: &'a Outputs,
    pub(super) planned: &'a Planned,
    pub(super) grafted: &'a Grafted,
    pub(super) kept: &'a Kept,
}

impl Recording<'_> {
    /// Brings the layers of what ran into the store, and records what they are.
    pub(super) async fn record(&self, executed: &Executed, released: &Released, inputs: &Inputs) -> Result<RepositoryBlobs> {
        let faulty = |error: crate::store::Error| Error::new(Kind::Cache, error.to_string());
        self.kept.begin().await.map_err(faulty)?;
        let mut saved = released.kept().await?;
        let [image] = &released.images[..] else { return Ok(saved) };
        let step = self.run.events.step("[hakobi] saving the cache");
        let done = async {
            let (stages, layers, intake) = self.stages(executed, released).await?;
            saved.pushed += layers.pushed;
            saved.bytes += layers.bytes;
            let looked = self.look(executed, &stages).await?;
            let keys = &looked.keys;
            let mut records: HashMap<StepKey, StepRecord> = HashMap::new();
            let intakes: Vec<&Intake> = std::iter::once(released.release.intake()).chain(&intake).collect();
            self.chain(self.planned.graph.result(), image, &looked, &intakes, &mut records).await?;
            for (state, image) in &stages {
                self.chain(state, image, &looked, &intakes, &mut records).await?;
            }
            let taken = looked.taken.into_iter().map(|(key, (content, state))| {
                let chain = match keys.state(&state) {
                    Key::Known(state) => records.get(&state).and_then(StepRecord::chain),
                    _ => None,
                };
                (key, TakenRecord { content, chain })
            });
            let taken: Vec<_> = taken.collect();
            let store = self.kept.records();
            store.write(taken).await.map_err(faulty)?;
            store.write(records).await.map_err(faulty)?;
            store.write([(self.kept.inputs_key(), inputs)]).await.map_err(faulty)?;
            if let (Key::Known(key), Some(own)) = (keys.state(self.planned.graph.result()), self.kept.own()) {
                let digest = image.manifest.digest().to_string();
                own.put_manifest(&image.manifest, &digest).await.map_err(|error| Error::new(Kind::Cache, error.to_string()))?;
                let record = ImageRecord { manifest: image.manifest.descriptor() };
                let key = self.run.image_key(&key, self.planned);
                store.write([(key, record)]).await.map_err(faulty)?;
            }
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
        executed: &Executed,
        released: &Released,
    ) -> Result<(Vec<(Input, Composed)>, RepositoryBlobs, Option<Intake>)> {
        let broken = |error: crate::graph::InvalidGraph| Error::push("the build graph cannot be read").because(&error);
        let graph = Graph::new(self.grafted.definition.clone()).map_err(broken)?;
        // Those of the whole graph: in the other one a stage may have lost the steps that name it.
        let all: Vec<Stage> = self.planned.graph.side_stages();
        let renamed: Vec<Stage> = all
            .iter()
            .map(|stage| Stage {
                name: stage.name.clone(),
                state: self.grafted.state(&stage.state),
                steps: graph.chain(&self.grafted.state(&stage.state)),
            })
            .collect();
        let new = stages_to_save(&renamed, executed);
        let (Some(to), false) = (self.kept.target(), new.is_empty()) else { return Ok(Default::default()) };
        let intake = released.release.intake_for(&to, &[], &released.images).await?;
        if let Some(own) = self.kept.own() {
            let known = self.planned.plan.kept.values();
            intake.intake.learn(|all| {
                for record in known {
                    let layers: Vec<_> = record.layers.iter().map(|layer| layer.blob.clone()).collect();
                    all.add_layers(&layers, &record.diff_ids(), own.repository());
                }
                self.planned.bases.iter().for_each(|base| all.add(base));
            });
        }
        let saver = StageSaver {
            docker: &self.run.docker,
            buildkit: &self.run.buildkit,
            session: self.session,
            endpoint: &intake.endpoint,
            intake: &intake.intake,
            entitlements: self.run.build.entitlements.clone(),
            platform: released.images[0].platform.clone(),
            exit: self.run.way.exit(&self.run.info, false),
        };
        let mut out = Vec::new();
        for (place, stage) in new.into_iter().enumerate() {
            let image = saver.save(&graph, stage, place).await?;
            let whole = all.iter().find(|whole| whole.name == stage.name && self.grafted.state(&whole.state) == stage.state);
            out.extend(whole.map(|whole| (whole.state.clone(), image)));
        }
        let saved = intake.pusher.finish_blobs().await?.total();
        Ok((out, saved, Some(intake.intake.clone())))
    }

    /// Looks at all that was taken out of stages in this run, and works out the keys by that.
    async fn look(&self, executed: &Executed, stages: &[(Input, Composed)]) -> Result<Looked> {
        let mut facts = self.planned.facts.clone();
        let (mut trees, mut found, mut asked) = (HashMap::new(), HashMap::new(), Vec::new());
        loop {
            let keys = Keys::of(&self.planned.graph, &facts);
            let open = keys.taken().iter().find(|taken| !asked.contains(&taken.key) && self.is_open(taken)).cloned();
            let Some(taken) = open else { return Ok(Looked { keys, trees, taken: found }) };
            asked.push(taken.key.clone());
            let Some(key) = taken.key.clone() else { continue };
            let tree = self.extract(&taken).await?;
            let content = tree.digest(&[Selector::everything()]);
            let content = content.map_err(|error| Error::push("what is copied out of a stage has no digest").because(&error))?;
            facts.taken.insert(key.clone(), content.clone());
            // Of what BuildKit had in its own cache nobody knows when it ran: it counts for this run's keys only.
            let kept = self.planned.plan.kept.contains_key(&taken.state) || self.is_source(&taken.state);
            let ran = executed.ended(&self.grafted.state(&taken.state).step);
            if kept || ran || stages.iter().any(|(state, _)| *state == taken.state) {
                found.insert(key, (content, taken.state.clone()));
            }
            trees.insert((taken.state, taken.selectors), tree);
        }
    }

    /// Whether a state is an image, a file or a repository as it was found: the same each time for its key.
    fn is_source(&self, state: &Input) -> bool {
        self.planned.graph.op(&state.step).is_some_and(|op| op.inputs.is_empty())
    }

    /// Whether a step ran on what is taken, and nobody has looked at just that.
    fn is_open(&self, taken: &Taken) -> bool {
        let plan = &self.planned.plan;
        let runs = |step: &Digest| plan.verdicts.get(step).is_some_and(Verdict::runs);
        let graph = &self.planned.graph;
        let used = graph.below(graph.result()).into_iter().any(|op| runs(&op.digest) && op.inputs.contains(&taken.state));
        let Some(key) = taken.key.as_ref().filter(|_| used) else { return false };
        match plan.kept.get(&taken.state) {
            Some(record) => {
                self.planned.taken.get(key).is_none_or(|taken| taken.chain.is_none() || taken.chain != record.chain())
            }
            None if self.is_source(&taken.state) => !self.planned.taken.contains_key(key),
            None => true,
        }
    }

    /// The content of what is taken, by the daemon's own copier.
    async fn extract(&self, taken: &Taken) -> Result<Tree> {
        let broken = |error: crate::graph::InvalidGraph| Error::push("the build graph cannot be read").because(&error);
        let graph = Graph::new(self.grafted.definition.clone()).map_err(broken)?;
        let definition = graph.extraction(&self.grafted.state(&taken.state), &taken.selectors);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        self.sinks.add(0, Box::new(ours));
        let reading = tokio::task::spawn_blocking(move || {
            let mut from = SyncIoBridge::new(theirs);
            let tree = Tree::of_tar(&mut from);
            // Whoever writes is not left alone with what comes behind the archive's end.
            std::io::copy(&mut from, &mut std::io::sink())?;
            tree
        });
        let export = Export { kind: "tar".to_owned(), attributes: [].into() };
        let request =
            SolveRequest { exports: vec![export], entitlements: self.run.build.entitlements.clone(), ..SolveRequest::default() };
        let solved =
            self.run
                .buildkit
                .build(self.session, request, &Events::none(), |mut gateway| async move {
                    gateway.graph(definition, &[], false).await
                })
                .await;
        solved
            .map_err(|status| Error::push(format!("what is copied out of a stage cannot be looked at: {}", status.message())))?;
        let tree = reading.await.map_err(std::io::Error::other).and_then(|tree| tree);
        tree.map_err(|error| Error::push("what is copied out of a stage cannot be read").because(&error))
    }

    /// The records of the states on a chain, if it adds up: each step one layer, on those of the base.
    async fn chain(
        &self,
        state: &Input,
        image: &Composed,
        looked: &Looked,
        intakes: &[&Intake],
        records: &mut HashMap<StepKey, StepRecord>,
    ) -> Result<()> {
        let chain = self.planned.graph.chain_of(state);
        let base: Vec<DiffId> = match &chain.base {
            None => Vec::new(),
            Some(base) => match self.planned.facts.images.get(&base.step) {
                Some(Ok(layers)) => layers.clone(),
                _ => return Ok(()),
            },
        };
        if image.diff_ids.len() != base.len() + chain.layers() || !image.diff_ids.starts_with(&base) {
            self.run.events.note(format!(
                "nothing is remembered of a stage: {} layers came of {} steps on {}",
                image.diff_ids.len(),
                chain.layers(),
                base.len()
            ));
            return Ok(());
        }
        let created = created(&image.config, image.diff_ids.len());
        let layers: Vec<Layer> = image
            .layers
            .iter()
            .zip(&image.diff_ids)
            .zip(created)
            .map(|((blob, diff_id), created)| {
                let blob = Descriptor { annotations: BTreeMap::new(), platform: None, ..blob.clone() };
                Layer { blob, diff_id: diff_id.clone(), created }
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for link in &chain.links {
            // What was kept is as it was recorded.
            if self.planned.plan.verdicts.get(&link.state.step) == Some(&Verdict::Hit) {
                continue;
            }
            let layers = &layers[..base.len() + link.layers];
            if let Some((op, layer)) = self.planned.graph.op(&link.made_by).zip(layers.last())
                && let Some(path) = self.stray(op, layer, looked, intakes).await?
            {
                self.run.events.warning(format!(
                    "{path} in the image has other bytes than were hashed for `{}`: something may have written to it meanwhile, and \
                     nothing is remembered from there on",
                    op.name
                ));
                return Ok(());
            }
            if let Key::Known(key) = looked.keys.state(&link.state) {
                records.insert(key, StepRecord { layers: layers.to_vec(), ran: now });
            }
        }
        Ok(())
    }

    /// A file of a copy's layer with bytes that the step's key was not made of.
    async fn stray(&self, op: &Op, layer: &Layer, looked: &Looked, intakes: &[&Intake]) -> Result<Option<String>> {
        let of = |input: &Input, selectors: &[Selector]| match self.planned.facts.locals.get(&input.step) {
            Some(local) => local.as_ref().ok().map(|tree| &**tree),
            None => looked.trees.get(&(input.clone(), selectors.to_vec())),
        };
        let allowed = allowed(&self.planned.graph, op, of);
        if allowed == Allowed::Anything {
            return Ok(None);
        }
        let unreadable = |error: std::io::Error| Error::new(Kind::Cache, "a new layer cannot be read again").because(&error);
        let mut bytes = None;
        for intake in intakes {
            if bytes.is_none() {
                bytes = intake.arrived(&layer.blob.digest).await.map_err(unreadable)?;
            }
        }
        if bytes.is_none() {
            let kept = self.kept.blobs().open(&layer.blob.digest, Some(layer.blob.size), 0).await;
            bytes = kept.map_err(|error| Error::new(Kind::Cache, error.to_string()))?;
        }
        let Some(bytes) = bytes else { return Ok(None) };
        let plain = plain(bytes).await.map_err(unreadable)?;
        let tree = tokio::task::spawn_blocking(move || Tree::of_tar(SyncIoBridge::new(plain))).await;
        let tree = tree.map_err(std::io::Error::other).and_then(|tree| tree).map_err(unreadable)?;
        Ok(stray(&tree, &allowed))
    }
}

/// What was looked at after a build.
struct Looked {
    keys: Keys,
    /// What was taken out of stages.
    trees: HashMap<(Input, Vec<Selector>), Tree>,
    /// What of it is remembered, with the state that it is of.
    taken: HashMap<StepKey, (Digest, Input)>,
}

/// When each layer was made, as the image's history has it.
fn created(config: &[u8], layers: usize) -> Vec<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        created: Option<String>,
        #[serde(default)]
        empty_layer: bool,
    }
    #[derive(serde::Deserialize)]
    struct History {
        #[serde(default)]
        history: Vec<Entry>,
    }
    let history = serde_json::from_slice::<History>(config).map(|config| config.history).unwrap_or_default();
    let times: Vec<Option<String>> = history.into_iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created).collect();
    if times.len() == layers { times } else { vec![None; layers] }
}
