//! Reuses the image of an earlier build: nothing runs, and hakobi pushes the cached image under its tags. It asks no daemon.

use crate::cache::opened::CacheRefusal;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::{Descriptor, ImageConfig, RawManifest, StepKey};
use crate::error::{Error, Result};
use crate::executor::execution::OrHalt;
use crate::executor::outcome::{Maker, Outcome};
use crate::executor::refused::replan_after;
use crate::handover::PreparedImage;
use crate::plan::{Assembled, ImageRecord, Layer, RecordKey, StepRecord, assemble};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::{PutOutcome, Release};
use crate::run::context::BuildContext;

/// Largest manifest and configuration that hakobi reads from the store, in bytes.
pub const SMALL: u64 = 16 << 20;

/// The image of a cached state.
pub enum Reusable {
    /// The image that an earlier build saved.
    AsRecorded(Box<PreparedImage>),
    /// An image that hakobi assembled again from the cached layers.
    FromLayers(Box<PreparedImage>),
    /// The cache has no such image, or the image is not only pushed.
    No,
    /// The saved image has other layers than the state's record: one of the two is wrong.
    Inconsistent,
}

/// Pushes the cached image if no step has to run. Returns `None` if a step has to run, or the image is not only pushed.
///
/// # Errors
/// A reason to plan again if the cache cannot supply what its records name.
pub async fn put(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> OrHalt<Option<Outcome>> {
    let Some(own) = cache.own() else { return Ok(None) };
    let (image, is_as_recorded) = match reusable(context, plan, cache, records).await? {
        Reusable::AsRecorded(image) => (*image, true),
        Reusable::FromLayers(image) => (*image, false),
        Reusable::No => return Ok(None),
        Reusable::Inconsistent => {
            let why = "the layers of the image do not match its last step".to_owned();
            context.cache.cache_refused(&CacheRefusal::Otherwise(why))?;
            return Err(Replan::CacheUnusable.into());
        }
    };
    let settings = &context.build.push_settings;
    // If this build records a new compiled form, the store must also have the configuration.
    let keep = cache.target().filter(|_| plan.is_new_form).map(|target| target.repository);
    let release = Release::open(&context.registries, &context.tags, keep.as_ref(), settings, &[], context.events).await?;
    match release.put(image, own).await? {
        PutOutcome::Done(released) => Ok(Some(Outcome::pushed(released, Maker::EarlierBuild { is_as_recorded }))),
        // Nothing is tagged yet: hakobi pushes layers before the manifest that names them.
        PutOutcome::Not(why) => Err(replan_after(&why, context, plan, cache, records).await?.into()),
    }
}

/// Returns the cached image of the result, if it is only pushed.
///
/// # Errors
/// If the cache cannot read its records.
pub async fn reusable(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> Result<Reusable> {
    let kept_result = plan.decision.cached.get(plan.graph.result()).filter(|_| context.is_only_pushed());
    let (Some(record), Some(key)) = (kept_result, plan.result_key()) else {
        return Ok(Reusable::No);
    };
    let image = image_key(context, &key, plan);
    if let Some(known) = records.one(&image).await?
        // hakobi assembles an image again that it cannot read.
        && let Some(known) = known_image(context, cache, &known).await
    {
        if !has_layers(&known, record) {
            records.refuse(&image);
            return Ok(Reusable::Inconsistent);
        }
        if says(&known, &plan.compiled.config) {
            return Ok(Reusable::AsRecorded(Box::new(known)));
        }
        records.refuse(&image);
    }
    let made = image_of(context, plan, &record.layers)
        .map_err(|error| Error::build("failed to read the configuration that the frontend returned").because(&error))?;
    Ok(Reusable::FromLayers(Box::new(composed(made.manifest, made.config)?)))
}

pub async fn known_image(_context: &BuildContext<'_>, cache: &CacheSession, known: &ImageRecord) -> Option<PreparedImage> {
    let bytes = cache.blobs().read(&known.manifest.digest, SMALL).await.ok()??;
    let raw = RawManifest { media_type: known.manifest.media_type.clone(), bytes };
    let config = raw.manifest().ok()?.config.digest;
    let config = cache.blobs().read(&config, SMALL).await.ok()??;
    composed(raw, config).ok()
}

/// Returns the key of this build's image record.
pub fn image_key(context: &BuildContext<'_>, state: &StepKey, plan: &BuildPlan) -> RecordKey<ImageRecord> {
    let mut options = vec![context.build.push_settings.compression.key_text()];
    options.extend(context.annotations().into_iter().map(|(name, value)| format!("{name}={value}")));
    crate::plan::image_key(state, &plan.compiled.config, &options)
}

/// Returns whether an image has the layers that a state's record names.
pub fn has_layers(image: &PreparedImage, record: &StepRecord) -> bool {
    let same = |(ours, theirs): (&Layer, &Descriptor)| ours.blob.digest == theirs.digest && ours.blob.size == theirs.size;
    image.diff_ids == record.diff_ids()
        && image.layers.len() == record.layers.len()
        && record.layers.iter().zip(&image.layers).all(same)
}

/// Returns whether an image's configuration agrees with the frontend's. The fields that the exporter completes do not count.
pub fn says(image: &PreparedImage, frontend: &[u8]) -> bool {
    type Object = serde_json::Map<String, serde_json::Value>;
    let read = |bytes: &[u8]| serde_json::from_slice::<Object>(bytes).ok();
    let (Some(frontend), Some(config)) = (read(frontend), read(&image.config)) else { return false };
    let mut said = frontend.iter().filter(|(name, _)| !matches!(&***name, "rootfs" | "history" | "created"));
    said.all(|(name, value)| config.get(name) == Some(value))
}

/// Returns an image that hakobi assembled, from its manifest and configuration.
///
/// # Errors
/// If these cannot be parsed.
pub fn composed(manifest: RawManifest, config: bytes::Bytes) -> Result<PreparedImage> {
    let broken = |error: serde_json::Error| Error::build("failed to read the image's configuration").because(&error);
    let parsed: ImageConfig = serde_json::from_slice(&config).map_err(broken)?;
    let layers = manifest.manifest().map_err(broken)?.layers;
    Ok(PreparedImage {
        manifest,
        config,
        diff_ids: parsed.rootfs.diff_ids,
        layers,
        platform: parsed.platform,
        inline_cache: None,
    })
}

/// Assembles the image of these layers with the build's configuration and annotations.
///
/// # Errors
/// If the configuration cannot be read.
pub fn image_of(context: &BuildContext<'_>, plan: &BuildPlan, layers: &[Layer]) -> serde_json::Result<Assembled> {
    let annotations = context.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
    assemble(&plan.compiled.config, layers, &annotations)
}
