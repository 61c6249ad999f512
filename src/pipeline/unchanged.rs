//! A build of which nothing has to run: the image is put together of what is kept, and put under its tags. No daemon is asked.

use std::collections::HashSet;

use super::build::Built;
use super::job::Job;
use super::kept::Kept;
use super::planning::{Planned, Remembered};
use super::release::{Release, Released};
use crate::domain::{Digest, ImageConfig, RawManifest, StepKey};
use crate::engine::EngineInfo;
use crate::engine::buildkit::SolveOutcome;
use crate::error::{Error, Result};
use crate::graph::{Input, Key};
use crate::handover::Composed;
use crate::plan::{Advice, ImageRecord, Inputs, Verdict, advise, assemble, explain, image_key};
use crate::report::{AdviceReport, Note};

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

impl Job<'_> {
    /// Puts the image, if nothing has to run and it is only to be pushed.
    pub(super) async fn put(&self, planned: &Planned, kept: &Kept, records: &Remembered<'_>) -> Result<Put> {
        let (Some(image), Some(own)) = (self.unchanged(planned, kept, records).await?, kept.own()) else {
            return Ok(Put::Open);
        };
        let settings = &self.build.push_settings;
        let release = Release::open(&self.registries, &self.tags, None, settings, &[], self.events).await?;
        match release.put(image, own).await {
            Ok(Some(released)) => {
                // What was made in an earlier run is the last one now.
                if let ([image], Some((_, faults))) = (&released.images[..], self.kept())
                    && let Err(error) = self.point(kept, image).await
                {
                    faults.tell("did not take this build", &error)?;
                }
                Ok(Put::Done(Box::new(released)))
            }
            Ok(None) => {
                self.store_lacks_layers()?;
                Ok(Put::Failed)
            }
            // Nothing was tagged yet: layers go before what names them.
            Err(_) if !kept.damaged().is_empty() => {
                self.store_failed("", None)?;
                Ok(Put::Failed)
            }
            Err(error) => Err(error),
        }
    }

    /// The image, where its state is kept and it is only to be pushed.
    async fn unchanged(&self, planned: &Planned, kept: &Kept, records: &Remembered<'_>) -> Result<Option<Composed>> {
        let kept_result = planned.plan.kept.get(planned.graph.result()).filter(|_| self.is_only_pushed());
        let (Some(record), Some(key)) = (kept_result, planned.result_key()) else {
            return Ok(None);
        };
        let image = self.image_key(&key, planned);
        let known = records.one::<ImageRecord>(&image).await?;
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
