//! Reports the result of a build: the report, the image's ID, the metadata.

use std::collections::HashSet;

use crate::build::Compiled;
use crate::domain::{Descriptor, Digest};
use crate::engine::buildkit::SolveOutcome;
use crate::engine::{EngineInfo, StoreKind};
use crate::error::Result;
use crate::event::Events;
use crate::output::{Deployable, ImageReport, LayerCounts, Metadata, TagReport, add_outputs, hand_off, write_iid_file};
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::Released;
use crate::run::built::Built;
use crate::run::context::BuildContext;
use crate::settings::BuildSettings;

/// Reports the end of a planned build.
///
/// # Errors
/// If a file cannot be written, or a tag failed.
pub fn finish(
    context: &BuildContext<'_>,
    built: &mut Built,
    plan: &BuildPlan,
    id: String,
    solved: SolveOutcome,
    released: Option<Released>,
    engine: Option<&EngineInfo>,
) -> Result<()> {
    context.cache.warn_of_damage()?;
    if let Some(store) = &context.cache.opened {
        built.report.cache.warnings = store.faults.warnings();
    }
    let layers: HashSet<Digest> =
        plan.decision.cached.values().flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
    if let Some((session, _)) = context.cache.usable() {
        session.restored(&layers).add_to(&mut built.report);
    }
    let id = match (&released, id.is_empty()) {
        // Without a daemon, the ID is the configuration's digest.
        (Some(released), true) => {
            let config = released.images.first().and_then(|image| image.manifest.manifest().ok());
            config.map(|manifest| manifest.config.digest.to_string()).unwrap_or_default()
        }
        _ => id,
    };
    report(context, built, &id, &solved, released.as_ref(), &plan.compiled, engine)?;
    match released {
        Some(released) => released.failure(),
        None => Ok(()),
    }
}

/// Writes the report, the image's ID and the metadata.
///
/// # Errors
/// If a file cannot be written.
pub fn report(
    context: &BuildContext<'_>,
    built: &mut Built,
    id: &str,
    solved: &SolveOutcome,
    released: Option<&Released>,
    compiled: &Compiled,
    engine: Option<&EngineInfo>,
) -> Result<()> {
    let platform = compiled.platform().map(|platform| platform.to_string()).unwrap_or_default();
    let config = solved.exporter.get("containerimage.config.digest").cloned();
    // Without a daemon and on overlay2 engines, the image's ID is the configuration's digest.
    let apart = engine.is_some_and(|engine| engine.store == StoreKind::Containerd);
    let config = config.unwrap_or_else(|| if apart { String::new() } else { id.to_owned() });
    let report = &mut built.report;
    let mut descriptor: Option<Descriptor> = None;
    let tags = context.tags.iter().map(|tag| TagReport { reference: tag.to_string(), pushed: false });
    let mut image = ImageReport { id: id.to_owned(), config, platform, tags: tags.collect(), ..ImageReport::default() };
    if let Some(released) = released {
        for tag in &mut image.tags {
            tag.pushed =
                released.tags.iter().any(|outcome| outcome.is_pushed() && outcome.reference.to_string() == tag.reference);
        }
        let LayerCounts { saved, restored, .. } = report.layers;
        report.layers = LayerCounts { saved, restored, ..released.layers };
        report.bytes.pushed = released.bytes;
        descriptor = Some(released.manifest.descriptor());
        image.digest = released.manifest.digest().to_string();
        for one in &released.images {
            let config = one.manifest.manifest().map(|manifest| manifest.config.digest.to_string()).unwrap_or_default();
            report.images.push(ImageReport {
                config,
                platform: one.platform.to_string(),
                digest: one.manifest.digest().to_string(),
                ..image.clone()
            });
        }
    } else if !id.is_empty() {
        report.images.push(image);
    }
    if let Some(path) = &context.build.iid_file
        && !id.is_empty()
    {
        write_iid_file(path, id)?;
    }
    // An index has several configurations.
    let config_digest = match &report.images[..] {
        [image] => image.config.parse::<Digest>().ok(),
        _ => None,
    };
    let metadata = Metadata {
        config_digest,
        descriptor,
        names: context.tags.clone(),
        exporter_response: solved.exporter.clone().into_iter().collect(),
    };
    write_metadata(context.build, &metadata, id, context.events)?;
    if let (Some(released), Some(tag)) = (released.filter(|released| released.failure().is_ok()), context.tags.first())
        && context.build.push
    {
        hand_off(&context.build.hand_off, &Deployable { tag: tag.clone(), digest: released.manifest.digest() })?;
    }
    built.text = (context.settings.progress == crate::settings::ProgressMode::Quiet && !id.is_empty()).then(|| format!("{id}\n"));
    Ok(())
}

/// Writes an image's metadata for scripts, and for the later steps of a GitHub workflow.
///
/// # Errors
/// If the metadata file cannot be written.
pub fn write_metadata(build: &BuildSettings, metadata: &Metadata, id: &str, events: &Events) -> Result<()> {
    if let Some(path) = &build.metadata_file {
        metadata.write(path)?;
    }
    // The user did not request these outputs, so a failed write is no error.
    if let Some(path) = &build.hand_off.github_output {
        let digest = metadata.descriptor.as_ref().map(|descriptor| descriptor.digest.to_string()).unwrap_or_default();
        if let Err(error) = add_outputs(path, id, &digest, &metadata.to_json().into()) {
            events.warning(format!("the step has no outputs: {}", error.message()));
        }
    }
    Ok(())
}
