//! A planned build: what is kept is put or grafted, what is open runs in the daemon, and all of it is remembered.

use std::collections::HashMap;
use std::time::Instant;

use super::build::{ATTEMPTS, Built, Run};
use super::cache::Cache;
use super::kept::Kept;
use super::planning::{Planned, Remembered};
use super::recording::Recording;
use super::release::{Release, Released};
use super::transport::Way;
use crate::build::{self, Compiled, Failed, failure, is_passing};
use crate::domain::{Digest, ImageConfig, Platform, RawManifest, StepKey};
use crate::engine::buildkit::{LocalDirs, Outputs, Session, SolveOutcome, SolveRequest, Solved, pb};
use crate::error::{Error, Result};
use crate::graph::{Graft, Grafted, Graph, Input, Key};
use crate::handover::Composed;
use crate::plan::{ImageRecord, Inputs, Verdict, assemble, explain, image_key};
use crate::registry::Source as _;
use crate::report::{Note, StrategyUsed, Tier};
use crate::save::Executed;
use crate::settings::Strategy;

/// Largest manifest and configuration read from the store, in bytes.
const SMALL: u64 = 16 << 20;

/// What a planned build works with.
pub(super) struct Work<'a> {
    pub(super) session: &'a Session,
    pub(super) sinks: &'a Outputs,
    pub(super) directories: &'a LocalDirs,
    pub(super) cache: &'a Cache,
}

impl Run<'_> {
    /// Whether hakobi plans this build: where there is a store that can be used, and the daemon can pull from this host.
    pub(super) fn plans(&self, input: &build::Input) -> bool {
        let usable = self.store.as_ref().is_some_and(|store| store.kept.is_some());
        let asked = self.build.strategy == Strategy::Auto;
        asked && usable && self.way == Way::Registry && !input.directories.is_empty()
    }

    /// Builds by plan.
    pub(super) async fn run_planned(&self, built: &mut Built, compiled: Compiled, work: Work<'_>) -> Result<()> {
        let Some((kept, faults)) = self.kept() else { return Err(Error::build("there is no store to plan with")) };
        built.report.strategy = StrategyUsed::Auto;
        let at = Instant::now();
        let remembered = Remembered::of(kept, faults);
        let mut planned = self.plan(compiled, work.directories, &remembered).await?;
        built.report.seconds.plan = at.elapsed().as_secs_f64();
        built.places = planned.graph.places();
        let inputs = Inputs::of(&planned.graph, &planned.keys, &planned.facts);
        if let Some(image) = self.unchanged(&planned, kept, &remembered).await? {
            match self.put(built, &planned, kept, image, &work).await {
                Ok(Some(released)) => {
                    return self.end(built, kept, &planned, String::new(), SolveOutcome::default(), Some(released));
                }
                Ok(None) => {
                    faults.tell(
                        "lacks layers of what it remembers",
                        &"they were removed",
                        Some("the next run has them again"),
                    )?;
                    planned.without_records();
                }
                // Nothing was tagged yet: layers go before what names them.
                Err(_) if !kept.damaged().is_empty() => {
                    self.store_failed("", None)?;
                    planned.without_records();
                }
                Err(error) => return Err(error),
            }
        }
        let key = kept.inputs_key();
        let before = remembered.read::<Inputs>(std::slice::from_ref(&key)).await?.remove(&key);
        self.explain(built, &planned, before.as_ref(), &inputs);
        self.show_hits(&planned);
        let keep = self.keeps().map(|target| target.repository);
        let tags = if self.build.push { &*self.tags } else { &[] };
        let mut release = None;
        if self.build.push || keep.is_some() {
            let mut known = planned.bases.clone();
            known.extend(work.cache.known());
            let settings = &self.build.push_settings;
            release = Some(Release::open(&self.registries, tags, keep.as_ref(), settings, &known, self.events).await?);
        }
        let at = Instant::now();
        let (solved, grafted, executed) = self.solve_planned(&mut planned, kept, &work, release.as_ref()).await?;
        built.report.seconds.build = at.elapsed().as_secs_f64();
        built.report.bytes.context = work.session.bytes_sent();
        let graph = Graph::new(grafted.definition.clone()).ok();
        built.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
        for (digest, name) in &grafted.names {
            if let Some(note) = built.notes.get(&digest.to_string()).cloned() {
                built.notes.insert(name.to_string(), note);
            }
        }
        let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
        let mut released = None;
        if let Some(release) = release {
            let at = Instant::now();
            let before = work.cache.before();
            let done = release.push(&self.docker, self.exit(), self.annotations(), &before, false, &[]).await?;
            built.report.seconds.push = at.elapsed().as_secs_f64();
            if self.keeps().is_some() {
                let at = Instant::now();
                let recording =
                    Recording { run: self, session: work.session, sinks: work.sinks, planned: &planned, grafted: &grafted, kept };
                match Box::pin(recording.record(&executed, &done, &inputs)).await {
                    Ok(saved) => {
                        built.report.layers.saved += saved.pushed;
                        built.report.bytes.saved += saved.bytes;
                    }
                    Err(error) => faults.tell("did not take this build", &error, error.hint_text())?,
                }
                built.report.seconds.save = at.elapsed().as_secs_f64();
            }
            released = Some(done);
        }
        self.end(built, kept, &planned, id, solved, released)
    }

    /// Says of each step that is not kept why, and of the first one aloud.
    fn explain(&self, built: &mut Built, planned: &Planned, before: Option<&Inputs>, now: &Inputs) {
        let mut reasons = explain(&planned.graph, &planned.plan, before, now);
        let mut first = before.is_some();
        for op in planned.graph.below(planned.graph.result()) {
            let Some(verdict) = planned.plan.verdicts.get(&op.digest) else { continue };
            let reason = reasons.remove(&op.digest).unwrap_or_default();
            if !reason.is_empty() && std::mem::take(&mut first) {
                self.events.note(format!("first changed step: {}: {reason}", op.name));
            }
            let key = match planned.keys.state(&Input { step: op.digest.clone(), output: 0 }) {
                Key::Known(key) => key.to_string(),
                _ => String::new(),
            };
            let note = Note { key, reason, uncacheable: matches!(verdict, Verdict::Uncacheable(_)) };
            built.notes.insert(op.digest.to_string(), note);
        }
    }

    /// The image, where its state is kept and it is only to be pushed.
    async fn unchanged(&self, planned: &Planned, kept: &Kept, remembered: &Remembered<'_>) -> Result<Option<Composed>> {
        let only_pushed = self.build.push && !self.build.load && self.build.outputs.is_empty();
        let (Some(record), Some(key), true) = (planned.plan.kept.get(planned.graph.result()), planned.result_key(), only_pushed)
        else {
            return Ok(None);
        };
        let image = self.image_key(&key, planned);
        let known = remembered.read::<ImageRecord>(std::slice::from_ref(&image)).await?.remove(&image);
        // One that cannot be read is made again.
        if let Some(known) = known
            && let Ok(Some(bytes)) = kept.blobs().read(&known.manifest.digest, SMALL).await
        {
            let raw = RawManifest { media_type: known.manifest.media_type, bytes };
            if let Ok(manifest) = raw.manifest()
                && let Ok(Some(config)) = kept.blobs().read(&manifest.config.digest, SMALL).await
            {
                return Ok(Some(composed(raw, config)?));
            }
        }
        let annotations = self.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let made = assemble(&planned.compiled.config, &record.layers, &annotations)
            .map_err(|error| Error::build("the frontend's configuration cannot be read").because(&error))?;
        Ok(Some(composed(made.manifest, made.config)?))
    }

    /// What an image of this build is remembered by.
    pub(super) fn image_key(&self, state: &StepKey, planned: &Planned) -> StepKey {
        let mut options = vec![format!("{:?}", self.build.push_settings.compression)];
        options.extend(self.annotations().into_iter().map(|(name, value)| format!("{name}={value}")));
        image_key(state, &planned.compiled.config, &options)
    }

    /// Puts an image of which nothing has to run; nothing where the store lacks a layer that a registry lacks too.
    async fn put(
        &self,
        built: &mut Built,
        planned: &Planned,
        kept: &Kept,
        image: Composed,
        work: &Work<'_>,
    ) -> Result<Option<Released>> {
        let Some(own) = kept.own() else { return Ok(None) };
        let settings = &self.build.push_settings;
        let known = work.cache.known();
        let release = Release::open(&self.registries, &self.tags, None, settings, &known, self.events).await?;
        let at = Instant::now();
        let Some(released) = release.put(image, own).await? else { return Ok(None) };
        self.show_hits(planned);
        built.report.seconds.push = at.elapsed().as_secs_f64();
        built.tier = Some(Tier::Unchanged);
        Ok(Some(released))
    }

    /// Solves what is open on what is kept.
    async fn solve_planned(
        &self,
        planned: &mut Planned,
        kept: &Kept,
        work: &Work<'_>,
        release: Option<&Release>,
    ) -> Result<(SolveOutcome, Grafted, Executed)> {
        let mut attempt = 1;
        loop {
            let grafted = self.graft(planned, kept, release)?;
            let (exports, files) = self.exports(release, work.sinks)?;
            let request =
                SolveRequest { exports, cache_exports: self.cache_exports(false), entitlements: self.build.entitlements.clone() };
            let (events, listening) = self.listen();
            let (definition, config) = (grafted.definition.clone(), planned.compiled.config.clone());
            let imports = work.cache.imports.clone();
            let building = self.buildkit.build(work.session, request, &events, |mut gateway| async move {
                let solved = gateway.graph(definition, &imports, false).await?;
                let metadata = [("containerimage.config".to_owned(), config)].into();
                Ok(Solved { metadata, ..solved })
            });
            let from_store = !planned.plan.kept.is_empty() && self.is_repeatable();
            let solved = tokio::select! {
                solved = building => Some(solved),
                () = self.store_damaged(), if from_store => None,
            };
            drop(events);
            let executed = listening.await.unwrap_or_default();
            let why = match solved {
                Some(Ok(solved)) => {
                    self.store_was_read()?;
                    files.finish().await?;
                    return Ok((solved, grafted, executed));
                }
                Some(Err(status)) if from_store && self.blames_store(status.message()) => status.message().to_owned(),
                Some(Err(status))
                    if attempt < ATTEMPTS
                        && (is_passing(&status) || self.is_left_over(status.message()))
                        && self.is_repeatable() =>
                {
                    self.events.warning(format!("trying again ({attempt} of {}): {}", ATTEMPTS - 1, status.message()));
                    tokio::time::sleep(std::time::Duration::from_secs(u64::from(attempt * 2))).await;
                    attempt += 1;
                    continue;
                }
                Some(Err(status)) => {
                    let failed = executed.failed().map(|step| Failed { definition: &grafted.definition, step });
                    return Err(failure(&status, work.session.local_failure(), failed));
                }
                None => "a layer is damaged".to_owned(),
            };
            self.store_failed(&why, release)?;
            planned.without_records();
        }
    }

    /// The graph with what is kept in place of what led to it, and with local sources under the name of their content: a daemon
    /// that has an older copy of them must not take a file of the same size and time for the same.
    fn graft(&self, planned: &Planned, kept: &Kept, release: Option<&Release>) -> Result<Grafted> {
        fn broken(error: &(dyn std::error::Error + 'static)) -> Error {
            Error::build("the build graph cannot be put together").because(error)
        }
        let own = kept.own().ok_or_else(|| Error::build("the store has no scope"))?;
        let mut grafts = HashMap::new();
        for (state, record) in &planned.plan.kept {
            let platform = serde_json::from_slice::<Platform>(&planned.compiled.config).map_err(|error| broken(&error))?;
            let config = serde_json::to_vec(&platform).map_err(|error| broken(&error))?;
            let image = assemble(&config, &record.layers, &serde_json::Map::new()).map_err(|error| broken(&error))?;
            let reference = own.offer(&image.manifest, image.config);
            let name = planned.graph.op(&state.step).map(|op| op.name.clone()).unwrap_or_default();
            let graft = Graft {
                identifier: format!("docker-image://{reference}"),
                attributes: [].into(),
                name: format!("[hakobi] from the cache: {name}"),
            };
            grafts.insert(state.clone(), graft);
            if let Some(release) = release {
                let layers: Vec<_> = record.layers.iter().map(|layer| layer.blob.clone()).collect();
                release.learn(&layers, &record.diff_ids(), own.repository());
            }
        }
        for (digest, tree) in &planned.facts.locals {
            let (Ok(tree), Some(op)) = (tree, planned.graph.op(digest)) else { continue };
            let Some(pb::op::Op::Source(source)) = &op.op.op else { continue };
            let Ok(content) = tree.digest(&[crate::domain::Selector::everything()]) else { continue };
            let mut attributes = source.attrs.clone();
            let hint = attributes.entry("local.sharedkeyhint".to_owned()).or_default();
            *hint = format!("{hint} {content}");
            let graft = Graft { identifier: source.identifier.clone(), attributes, name: op.name.clone() };
            grafts.insert(Input { step: digest.clone(), output: 0 }, graft);
        }
        planned.graph.grafted(planned.graph.result(), &grafts).map_err(|error| broken(&error))
    }

    /// What is told at the end of a planned build.
    fn end(
        &self,
        built: &mut Built,
        kept: &Kept,
        planned: &Planned,
        id: String,
        solved: SolveOutcome,
        released: Option<Released>,
    ) -> Result<()> {
        if let Some(store) = &self.store {
            built.report.cache.warnings = store.faults.told();
        }
        let layers: std::collections::HashSet<Digest> =
            planned.plan.kept.values().flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
        (built.report.layers.restored, built.report.bytes.restored) = kept.restored(&layers);
        let id = match (&released, id.is_empty()) {
            // Without a daemon, the configuration's digest.
            (Some(released), true) => {
                let config = released.images.first().and_then(|image| image.manifest.manifest().ok());
                config.map(|manifest| manifest.config.digest.to_string()).unwrap_or_default()
            }
            _ => id,
        };
        self.tell(built, &id, &solved, released.as_ref(), &planned.compiled)?;
        match released {
            Some(released) => released.failure(),
            None => Ok(()),
        }
    }
}

fn composed(manifest: RawManifest, config: bytes::Bytes) -> Result<Composed> {
    let broken = |error: serde_json::Error| Error::build("the image's configuration cannot be read").because(&error);
    let parsed: ImageConfig = serde_json::from_slice(&config).map_err(broken)?;
    let layers = manifest.manifest().map_err(broken)?.layers;
    Ok(Composed { manifest, config, diff_ids: parsed.rootfs.diff_ids, layers, platform: parsed.platform, inline_cache: None })
}
