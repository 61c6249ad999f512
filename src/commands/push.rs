//! `hakobi push IMAGE…`: hakobi pushes images of the daemon.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::domain::ImageRef;
use crate::engine::{Dialer, Docker};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::handover::load;
use crate::output::{ImageReport, Outcome, RunReport, TagReport};
use crate::publish::release::Release;
use crate::push::preflight;
use crate::registry::Registries;
use crate::run::daemon::{engine_report, had};
use crate::run::transport::LayerTransport;
use crate::settings::{PushSettings, Settings};

/// Pushes images that the daemon has.
///
/// # Errors
/// If the daemon lacks one, or a push fails; hakobi tries the others.
pub async fn push(settings: &Settings, images: &[ImageRef], push: &PushSettings, events: &Events) -> Result<RunReport> {
    let began = Instant::now();
    let registries = Registries::new(&settings.registries, events.clone());
    let docker = Docker::connect(Dialer::new(&settings.daemon)?).await?;
    let info = docker.info().await?;
    for image in images {
        if docker.image_id(&image.to_string()).await?.is_none() {
            return Err(Error::push(format!("the daemon has no image {image}")).hint("list its images with `docker images`"));
        }
    }
    crate::run::leftovers::clear(&docker).await;
    let way = LayerTransport::choose(settings.transport, &docker).await?;
    let looked = preflight(&registries, images, push).await?;
    for (tag, there) in &looked.skipped {
        events.note(format!("skipping {tag}: it already exists ({})", there.digest));
    }
    let mut report = RunReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        outcome: Outcome::Skipped,
        engine: engine_report(&info, Some(way)),
        ..RunReport::default()
    };
    let mut failures = Vec::new();
    for image in &looked.push {
        let id = docker.image_id(&image.to_string()).await?.unwrap_or_default();
        // The new image probably shares layers with the tag's present image and with `latest`.
        let mut known = load(&registries, image, None).await.unwrap_or_default();
        if image.tag.as_deref() != Some("latest") {
            known.extend(load(&registries, &image.repository.tag("latest"), None).await.unwrap_or_default());
        }
        let release = Release::open(&registries, std::slice::from_ref(image), None, push, &known, events).await?;
        docker.tag(&image.to_string(), &release.reference()).await?;
        let made = had(&docker, &info, image).await?;
        let released = release.push(&docker, way.exit(&info, true), made, BTreeMap::new(), &known, false, &[]);
        let released = Box::pin(released).await?;
        report.seconds.push = began.elapsed().as_secs_f64();
        report.layers.pushed += released.layers.pushed;
        report.layers.already_in_registry += released.layers.already_in_registry;
        report.bytes.pushed += released.bytes;
        for one in &released.images {
            report.images.push(ImageReport {
                id: id.clone(),
                config: one.manifest.manifest().map(|manifest| manifest.config.digest.to_string()).unwrap_or_default(),
                digest: one.manifest.digest().to_string(),
                platform: one.platform.to_string(),
                tags: vec![TagReport { reference: image.to_string(), pushed: released.failure().is_ok() }],
                ..ImageReport::default()
            });
        }
        match released.failure() {
            Ok(()) => report.outcome = Outcome::Success,
            Err(error) => failures.push(error),
        }
    }
    report.seconds.total = began.elapsed().as_secs_f64();
    let Some(first) = failures.first() else { return Ok(report) };
    let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Err(Error::new(first.kind(), all.join("\n")).hint_if(failures.iter().find_map(Error::hint_text)))
}
