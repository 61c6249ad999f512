//! A build of which nothing has to run: the image is put together of what is kept, and put under its tags. No daemon is asked.

use std::collections::HashSet;

use super::build::Built;
use super::job::Job;
use super::kept::Kept;
use super::planning::{Planned, Remembered};
use super::release::{Given, NotGiven, Release, Released};
use crate::domain::{Descriptor, Digest, ImageConfig, RawManifest, StepKey};
use crate::engine::EngineInfo;
use crate::engine::buildkit::SolveOutcome;
use crate::error::{Error, Kind, Result};
use crate::graph::{Input, Key};
use crate::handover::Composed;
use crate::plan::{Advice, ImageRecord, Inputs, Layer, StepRecord, Verdict, advise, assemble, explain, image_key};
use crate::report::{AdviceReport, Note};
use crate::transfer::BytesSource;

/// Largest manifest and configuration read from the store, in bytes.
const SMALL: u64 = 16 << 20;

/// What came of putting an image.
pub(super) enum Put {
    /// It is there.
    Done(Box<Released>),
    /// Something has to run.
    Open,
    /// The store cannot give what it remembers; that was told.
    Failed,
}

/// The image of a state that is kept.
enum Whole {
    /// As it was kept.
    Image(Box<Composed>),
    /// Made again of its layers.
    Made(Box<Composed>),
    /// There is none, or it is not only to be pushed.
    Nothing,
    /// It has other layers than are remembered of the state: one of the two is wrong.
    Otherwise,
}

impl Job<'_> {
    /// Puts the image, if nothing has to run and it is only to be pushed.
    pub(super) async fn put(&self, planned: &Planned, kept: &Kept, records: &Remembered<'_>) -> Result<Put> {
        let Some(own) = kept.own() else { return Ok(Put::Open) };
        let (image, is_kept) = match self.unchanged(planned, kept, records).await? {
            Whole::Image(image) => (*image, true),
            Whole::Made(image) => (*image, false),
            Whole::Nothing => return Ok(Put::Open),
            Whole::Otherwise => {
                let why = "the layers of the image are not those of its last step".to_owned();
                self.store_gave_not(&NotGiven::Otherwise(why))?;
                return Ok(Put::Failed);
            }
        };
        let settings = &self.build.push_settings;
        // What is remembered with a new compiled form has its configuration in the store.
        let keep = kept.target().filter(|_| planned.is_new_form).map(|target| target.repository);
        let release = Release::open(&self.registries, &self.tags, keep.as_ref(), settings, &[], self.events).await?;
        match release.put(image, own).await? {
            Given::Done(released) => {
                if let ([image], Some((_, faults))) = (&released.images[..], self.kept())
                    && let Err(error) = self.remember_put(planned, kept, image, is_kept).await
                {
                    faults.tell("did not take this build", &error)?;
                }
                Ok(Put::Done(released))
            }
            // Nothing was tagged yet: layers go before what names them.
            Given::Not(why) => {
                self.store_gave_not(&why)?;
                Ok(Put::Failed)
            }
        }
    }

    /// What was made in an earlier run is the last one now. What of it was lost or damaged is written anew.
    async fn remember_put(&self, planned: &Planned, kept: &Kept, image: &Composed, is_kept: bool) -> Result<()> {
        if kept.target().is_none() {
            return Ok(());
        }
        if !is_kept || !kept.unusable().is_empty() {
            let faulty = |error: crate::store::Error| Error::new(Kind::Cache, error.to_string());
            kept.begin().await.map_err(faulty)?;
            for bytes in [&image.config, &image.manifest.bytes] {
                kept.blobs().keep(&BytesSource::new(bytes.clone())).await.map_err(faulty)?;
            }
            if let Some(key) = planned.result_key() {
                let record = ImageRecord { manifest: image.manifest.descriptor() };
                kept.records().write([(self.image_key(&key, planned), record)]).await.map_err(faulty)?;
            }
        }
        self.point(kept, image).await
    }

    /// The image, where its state is kept and it is only to be pushed.
    async fn unchanged(&self, planned: &Planned, kept: &Kept, records: &Remembered<'_>) -> Result<Whole> {
        let kept_result = planned.plan.kept.get(planned.graph.result()).filter(|_| self.is_only_pushed());
        let (Some(record), Some(key)) = (kept_result, planned.result_key()) else {
            return Ok(Whole::Nothing);
        };
        let image = self.image_key(&key, planned);
        if let Some(known) = records.one::<ImageRecord>(&image).await?
            // One that cannot be read is made again.
            && let Some(known) = self.known_image(kept, &known).await
        {
            if !has_layers(&known, record) {
                records.refuse(&image);
                return Ok(Whole::Otherwise);
            }
            if says(&known, &planned.compiled.config) {
                return Ok(Whole::Image(Box::new(known)));
            }
            records.refuse(&image);
        }
        let annotations = self.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let made = assemble(&planned.compiled.config, &record.layers, &annotations)
            .map_err(|error| Error::build("the frontend's configuration cannot be read").because(&error))?;
        Ok(Whole::Made(Box::new(composed(made.manifest, made.config)?)))
    }

    async fn known_image(&self, kept: &Kept, known: &ImageRecord) -> Option<Composed> {
        let bytes = kept.blobs().read(&known.manifest.digest, SMALL).await.ok()??;
        let raw = RawManifest { media_type: known.manifest.media_type.clone(), bytes };
        let config = raw.manifest().ok()?.config.digest;
        let config = kept.blobs().read(&config, SMALL).await.ok()??;
        composed(raw, config).ok()
    }

    /// What an image of this build is remembered by.
    pub(super) fn image_key(&self, state: &StepKey, planned: &Planned) -> StepKey {
        let mut options = vec![format!("{:?}", self.build.push_settings.compression)];
        options.extend(self.annotations().into_iter().map(|(name, value)| format!("{name}={value}")));
        image_key(state, &planned.compiled.config, &options)
    }

    /// Says of each step that is not kept why, and of the first one aloud.
    pub(super) fn explain(&self, built: &mut Built, planned: &Planned, before: Option<&Inputs>, now: &Inputs) {
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

    /// Says what would have made the build cheaper, given what ran and what that took.
    pub(super) fn advise(
        &self,
        built: &mut Built,
        planned: &Planned,
        ran: &HashSet<Digest>,
        before: Option<&Inputs>,
        now: &Inputs,
    ) {
        for advice in advise(&planned.graph, ran, before, now) {
            self.events.note(format!("advice: {}:{}: {}", advice.file, advice.line, advice.text));
            built.report.advice.push(told(advice));
        }
    }

    /// What is told at the end of a planned build.
    pub(super) fn end(
        &self,
        built: &mut Built,
        planned: &Planned,
        id: String,
        solved: SolveOutcome,
        released: Option<Released>,
        engine: Option<&EngineInfo>,
    ) -> Result<()> {
        self.tell_damage()?;
        if let Some(store) = &self.store {
            built.report.cache.warnings = store.faults.told();
        }
        let layers: HashSet<Digest> =
            planned.plan.kept.values().flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
        if let Some((kept, _)) = self.kept() {
            kept.restored(&layers).tell(&mut built.report);
        }
        let id = match (&released, id.is_empty()) {
            // Without a daemon, the configuration's digest.
            (Some(released), true) => {
                let config = released.images.first().and_then(|image| image.manifest.manifest().ok());
                config.map(|manifest| manifest.config.digest.to_string()).unwrap_or_default()
            }
            _ => id,
        };
        self.tell(built, &id, &solved, released.as_ref(), &planned.compiled, engine)?;
        match released {
            Some(released) => released.failure(),
            None => Ok(()),
        }
    }
}

/// Whether an image has the layers that are remembered of a state.
fn has_layers(image: &Composed, record: &StepRecord) -> bool {
    let same = |(ours, theirs): (&Layer, &Descriptor)| ours.blob.digest == theirs.digest && ours.blob.size == theirs.size;
    image.diff_ids == record.diff_ids()
        && image.layers.len() == record.layers.len()
        && record.layers.iter().zip(&image.layers).all(same)
}

/// Whether an image's configuration says what the frontend says. What the exporter completes is left out.
fn says(image: &Composed, frontend: &[u8]) -> bool {
    type Object = serde_json::Map<String, serde_json::Value>;
    let read = |bytes: &[u8]| serde_json::from_slice::<Object>(bytes).ok();
    let (Some(frontend), Some(config)) = (read(frontend), read(&image.config)) else { return false };
    let mut said = frontend.iter().filter(|(name, _)| !matches!(&***name, "rootfs" | "history" | "created"));
    said.all(|(name, value)| config.get(name) == Some(value))
}

/// Advice as reports have it.
pub(super) fn told(advice: Advice) -> AdviceReport {
    let Advice { file, line, seconds, text } = advice;
    AdviceReport { file, line, seconds, text }
}

/// An image that is put together here.
pub(super) fn composed(manifest: RawManifest, config: bytes::Bytes) -> Result<Composed> {
    let broken = |error: serde_json::Error| Error::build("the image's configuration cannot be read").because(&error);
    let parsed: ImageConfig = serde_json::from_slice(&config).map_err(broken)?;
    let layers = manifest.manifest().map_err(broken)?.layers;
    Ok(Composed { manifest, config, diff_ids: parsed.rootfs.diff_ids, layers, platform: parsed.platform, inline_cache: None })
}
