//! After a planned build: what ran is remembered, layers before what names them.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::io::SyncIoBridge;

use super::build::Run;
use super::kept::Kept;
use super::planning::Planned;
use super::release::Released;
use crate::context::Tree;
use crate::domain::{DiffId, Digest, Selector, StepKey};
use crate::engine::buildkit::{Export, Outputs, Session, SolveRequest};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::graph::{Grafted, Graph, Input, Key, Keys, Stage, Taken};
use crate::handover::Composed;
use crate::plan::{ImageRecord, Layer, StepRecord, TakenRecord};
use crate::push::RepositoryBlobs;
use crate::registry::{Home as _, Source as _};
use crate::save::{Executed, StageSaver, stages_to_save};

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
    pub(super) async fn record(&self, executed: &Executed, released: &Released) -> Result<RepositoryBlobs> {
        let faulty = |error: crate::store::Error| Error::new(Kind::Cache, error.to_string());
        self.kept.begin().await.map_err(faulty)?;
        let mut saved = released.kept().await?;
        let [image] = &released.images[..] else { return Ok(saved) };
        let step = self.run.events.step("[hakobi] saving the cache");
        let done = async {
            let (stages, layers) = self.stages(executed, released).await?;
            saved.pushed += layers.pushed;
            saved.bytes += layers.bytes;
            let (keys, taken) = self.keys(executed).await?;
            let mut records: HashMap<StepKey, StepRecord> = HashMap::new();
            self.chain(self.planned.graph.result(), image, &keys, &mut records);
            for (state, image) in &stages {
                self.chain(state, image, &keys, &mut records);
            }
            let store = self.kept.records();
            store.write(taken).await.map_err(faulty)?;
            store.write(records).await.map_err(faulty)?;
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

    /// The stages beside the final one that ran, by their states in the whole graph.
    async fn stages(&self, executed: &Executed, released: &Released) -> Result<(Vec<(Input, Composed)>, RepositoryBlobs)> {
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
        Ok((out, saved))
    }

    /// The keys by what is known now: all that was taken out of stages that are here has been looked at.
    async fn keys(&self, executed: &Executed) -> Result<(Keys, Vec<(StepKey, TakenRecord)>)> {
        let (mut facts, mut records, mut asked) = (self.planned.facts.clone(), Vec::new(), Vec::new());
        loop {
            let keys = Keys::of(&self.planned.graph, &facts);
            let open = keys.taken().iter().find(|taken| self.is_open(taken, executed) && !asked.contains(&taken.key)).cloned();
            let Some(taken) = open else { return Ok((keys, records)) };
            asked.push(taken.key.clone());
            let Some(key) = taken.key.clone() else { continue };
            let content = self.extract(&taken).await?;
            facts.taken.insert(key.clone(), content.clone());
            records.push((key, TakenRecord { content }));
        }
    }

    /// Whether what is taken may be another thing now: the stage ran, or nobody ever looked.
    fn is_open(&self, taken: &Taken, executed: &Executed) -> bool {
        let Some(key) = &taken.key else { return false };
        let needed = self.planned.plan.verdicts.get(&taken.state.step);
        let here = matches!(needed, Some(crate::plan::Verdict::Miss | crate::plan::Verdict::Uncacheable(_)));
        let ran = executed.ended(&self.grafted.state(&taken.state).step);
        (here && ran)
            || (!self.planned.facts.taken.contains_key(key) && (here || self.planned.plan.kept.contains_key(&taken.state)))
    }

    /// The content of what is taken, by the daemon's own copier.
    async fn extract(&self, taken: &Taken) -> Result<Digest> {
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
        let tree = tree.map_err(|error| Error::push("what is copied out of a stage cannot be read").because(&error))?;
        tree.digest(&[Selector::everything()])
            .map_err(|error| Error::push("what is copied out of a stage has no digest").because(&error))
    }

    /// The records of the states on a chain, if it adds up: each step one layer, on those of the base.
    fn chain(&self, state: &Input, image: &Composed, keys: &Keys, records: &mut HashMap<StepKey, StepRecord>) {
        let chain = self.planned.graph.chain_of(state);
        let base: Vec<DiffId> = match &chain.base {
            None => Vec::new(),
            Some(base) => match self.planned.facts.images.get(&base.step) {
                Some(Ok(layers)) => layers.clone(),
                _ => return,
            },
        };
        if image.diff_ids.len() != base.len() + chain.states.len() || !image.diff_ids.starts_with(&base) {
            return;
        }
        let created = created(&image.config, image.diff_ids.len());
        let layers: Vec<Layer> = image
            .layers
            .iter()
            .zip(&image.diff_ids)
            .zip(created)
            .map(|((blob, diff_id), created)| {
                let blob = crate::domain::Descriptor { annotations: Default::default(), platform: None, ..blob.clone() };
                Layer { blob, diff_id: diff_id.clone(), created }
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for (place, state) in chain.states.iter().enumerate() {
            // What was kept is as it was recorded.
            if let Key::Known(key) = keys.state(state)
                && self.planned.plan.verdicts.get(&state.step) != Some(&crate::plan::Verdict::Hit)
            {
                let record = StepRecord { layers: layers[..=base.len() + place].to_vec(), ran: now };
                records.insert(key, record);
            }
        }
    }
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
