//! A build of which nothing has to run: the image is put together of what is kept, and put under its tags. No daemon is asked.

use crate::cache::opened::CacheRefusal;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::domain::{Descriptor, ImageConfig, RawManifest, StepKey};
use crate::error::{Error, Result};
use crate::executor::execution::OrHalt;
use crate::executor::outcome::{Maker, Outcome};
use crate::handover::PreparedImage;
use crate::plan::{Assembled, ImageRecord, Layer, RecordKey, StepRecord, assemble};
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::{PutOutcome, Release};
use crate::run::context::BuildContext;

/// Largest manifest and configuration read from the store, in bytes.
pub const SMALL: u64 = 16 << 20;

/// The image of a state that is kept.
pub enum Whole {
    /// As it was kept.
    Image(Box<PreparedImage>),
    /// Made again of its layers.
    Made(Box<PreparedImage>),
    /// There is none, or it is not only to be pushed.
    Nothing,
    /// It has other layers than are remembered of the state: one of the two is wrong.
    Otherwise,
}

/// Puts the image, if nothing has to run and it is only to be pushed. Returns `None` if that is not so.
///
/// # Errors
/// [`Replan::CacheUnusable`] if the cache cannot give what its records say.
pub async fn put(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> OrHalt<Option<Outcome>> {
    let Some(own) = cache.own() else { return Ok(None) };
    let (image, is_as_recorded) = match unchanged(context, plan, cache, records).await? {
        Whole::Image(image) => (*image, true),
        Whole::Made(image) => (*image, false),
        Whole::Nothing => return Ok(None),
        Whole::Otherwise => {
            let why = "the layers of the image do not match its last step".to_owned();
            context.cache.cache_refused(&CacheRefusal::Otherwise(why))?;
            return Err(Replan::CacheUnusable.into());
        }
    };
    let settings = &context.build.push_settings;
    // What is remembered with a new compiled form has its configuration in the store.
    let keep = cache.target().filter(|_| plan.is_new_form).map(|target| target.repository);
    let release = Release::open(&context.registries, &context.tags, keep.as_ref(), settings, &[], context.events).await?;
    match release.put(image, own).await? {
        PutOutcome::Done(released) => Ok(Some(Outcome::pushed(released, Maker::EarlierBuild { is_as_recorded }))),
        // Nothing was tagged yet: layers go before what names them.
        PutOutcome::Not(why) => {
            context.cache.cache_refused(&why)?;
            Err(Replan::CacheUnusable.into())
        }
    }
}

/// The image, where its state is kept and it is only to be pushed.
pub async fn unchanged(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    records: &RecordReader<'_>,
) -> Result<Whole> {
    let kept_result = plan.decision.cached.get(plan.graph.result()).filter(|_| context.is_only_pushed());
    let (Some(record), Some(key)) = (kept_result, plan.result_key()) else {
        return Ok(Whole::Nothing);
    };
    let image = image_key(context, &key, plan);
    if let Some(known) = records.one(&image).await?
        // One that cannot be read is made again.
        && let Some(known) = known_image(context, cache, &known).await
    {
        if !has_layers(&known, record) {
            records.refuse(&image);
            return Ok(Whole::Otherwise);
        }
        if says(&known, &plan.compiled.config) {
            return Ok(Whole::Image(Box::new(known)));
        }
        records.refuse(&image);
    }
    let made = image_of(context, plan, &record.layers)
        .map_err(|error| Error::build("failed to read the configuration that the frontend returned").because(&error))?;
    Ok(Whole::Made(Box::new(composed(made.manifest, made.config)?)))
}

pub async fn known_image(_context: &BuildContext<'_>, cache: &CacheSession, known: &ImageRecord) -> Option<PreparedImage> {
    let bytes = cache.blobs().read(&known.manifest.digest, SMALL).await.ok()??;
    let raw = RawManifest { media_type: known.manifest.media_type.clone(), bytes };
    let config = raw.manifest().ok()?.config.digest;
    let config = cache.blobs().read(&config, SMALL).await.ok()??;
    composed(raw, config).ok()
}

/// What an image of this build is remembered by.
pub fn image_key(context: &BuildContext<'_>, state: &StepKey, plan: &BuildPlan) -> RecordKey<ImageRecord> {
    let mut options = vec![context.build.push_settings.compression.key_text()];
    options.extend(context.annotations().into_iter().map(|(name, value)| format!("{name}={value}")));
    crate::plan::image_key(state, &plan.compiled.config, &options)
}

/// Whether an image has the layers that are remembered of a state.
pub fn has_layers(image: &PreparedImage, record: &StepRecord) -> bool {
    let same = |(ours, theirs): (&Layer, &Descriptor)| ours.blob.digest == theirs.digest && ours.blob.size == theirs.size;
    image.diff_ids == record.diff_ids()
        && image.layers.len() == record.layers.len()
        && record.layers.iter().zip(&image.layers).all(same)
}

/// Whether an image's configuration says what the frontend says. What the exporter completes is left out.
pub fn says(image: &PreparedImage, frontend: &[u8]) -> bool {
    type Object = serde_json::Map<String, serde_json::Value>;
    let read = |bytes: &[u8]| serde_json::from_slice::<Object>(bytes).ok();
    let (Some(frontend), Some(config)) = (read(frontend), read(&image.config)) else { return false };
    let mut said = frontend.iter().filter(|(name, _)| !matches!(&***name, "rootfs" | "history" | "created"));
    said.all(|(name, value)| config.get(name) == Some(value))
}

/// An image that is put together here.
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

/// The image of these layers with the build's configuration and annotations.
///
/// # Errors
/// If the configuration cannot be read.
pub fn image_of(context: &BuildContext<'_>, plan: &BuildPlan, layers: &[Layer]) -> serde_json::Result<Assembled> {
    let annotations = context.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
    assemble(&plan.compiled.config, layers, &annotations)
}
