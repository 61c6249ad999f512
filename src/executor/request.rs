//! Builds the request of a solve: the destination of its result, and the release that receives it.

use std::collections::BTreeMap;

use crate::engine::StoreKind;
use crate::engine::buildkit::{CacheOption, Export, Outputs, SolveRequest};
use crate::error::{Error, Result};
use crate::executor::execution::Execution;
use crate::planner::bases;
use crate::planner::build_plan::BuildPlan;
use crate::publish::outputs;
use crate::publish::release::{Release, Released};
use crate::run::context::BuildContext;
use crate::run::daemon::{DaemonBuild, SEVERAL_EXPORTS_API};
use crate::save::Exit;

pub fn cache_exports(daemon: &DaemonBuild<'_>, inline: bool) -> Vec<CacheOption> {
    let mut exports: Vec<CacheOption> = daemon
        .context
        .build
        .cache_to
        .iter()
        .map(|to| CacheOption { kind: to.kind.clone(), attributes: to.attributes.clone() })
        .collect();
    if inline && !exports.iter().any(|export| export.kind == "inline") {
        exports.push(CacheOption { kind: "inline".to_owned(), attributes: BTreeMap::new() });
    }
    exports
}

/// Returns a request whose result goes to these exports.
pub fn request(daemon: &DaemonBuild<'_>, exports: Vec<Export>, cache_exports: Vec<CacheOption>) -> SolveRequest {
    let entitlements = daemon.context.build.entitlements.clone();
    let platforms: Vec<String> = daemon.context.build.platforms.iter().map(ToString::to_string).collect();
    let platform = (!platforms.is_empty()).then(|| platforms.join(","));
    SolveRequest { exports, cache_exports, entitlements, platform }
}

pub fn exports(daemon: &DaemonBuild<'_>, release: Option<&Release>, sinks: &Outputs) -> Result<(Vec<Export>, outputs::Files)> {
    let mut exports = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let into_daemon = release.is_some() || daemon.context.build.load;
    if into_daemon && daemon.context.build.platforms.len() > 1 && daemon.info.store == StoreKind::GraphDriver {
        let why = "cannot build an image for several platforms: this Docker daemon's image store (overlay2) supports one platform per image";
        return Err(Error::build(why).hint(
            "enable the containerd image store (https://docs.docker.com/go/build-multi-platform/), set DOCKER_HOST to a daemon that has it, \
             or build one platform at a time",
        ));
    }
    if daemon.context.build.load {
        names.extend(daemon.context.tags.iter().map(ToString::to_string));
    }
    match release.map(Release::reference) {
        Some(reference) if daemon.exit() == Exit::Straight => exports.push(Export::to_registry(&reference)),
        Some(reference) => {
            names.push(reference.to_string());
            exports.push(Export::into_daemon(&names));
            if let Some(release) = release {
                release.lend(daemon.docker.borrow(reference));
            }
        }
        None if daemon.context.build.load => exports.push(Export::into_daemon(&names)),
        None => {}
    }
    let mut files = outputs::Files::default();
    for output in &daemon.context.build.outputs {
        let (kind, sink) = files.open(output)?;
        sinks.add(exports.len(), sink);
        let mut attributes = output.attributes.clone();
        if matches!(&*kind, "docker" | "oci") && !attributes.contains_key("name") && !daemon.context.tags.is_empty() {
            attributes
                .insert("name".to_owned(), daemon.context.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        }
        exports.push(Export { kind, attributes });
    }
    if exports.len() > 1 && daemon.info.api < SEVERAL_EXPORTS_API {
        return Err(Error::usage(format!("Docker {} supports only one output per build", daemon.info.version))
            .hint("run hakobi once for each output; later runs find all steps built"));
    }
    Ok((exports, files))
}

/// Opens the release that takes the image from the daemon. Returns `None` if the image is neither pushed nor saved to the cache.
pub async fn open_release(execution: &Execution<'_>, plan: &BuildPlan) -> Result<Option<Release>> {
    let Execution { daemon, imports, .. } = *execution;
    let context = &daemon.context;
    // An unchanged image is in the cache already, and need not be saved again.
    let keep = daemon.cache_target().map(|target| target.repository).filter(|_| context.build.push || !plan.decision.unchanged);
    if !context.build.push && keep.is_none() {
        return Ok(None);
    }
    let tags = if context.build.push { &*context.tags } else { &[] };
    // For a recalled Dockerfile, hakobi has not asked the registries yet where the layers of its base images are.
    let mut known = match plan.bases.is_empty() && plan.recorded_bases.is_none() {
        true => bases::bases(context, &plan.graph).await,
        false => plan.bases.values().cloned().collect(),
    };
    known.extend_from_slice(imports.latest());
    let settings = &context.build.push_settings;
    Ok(Some(Release::open(&context.registries, tags, keep.as_ref(), settings, &known, context.events).await?))
}

/// Returns the released image. A failure is the cache's, and only a warning, if hakobi only saves the image and does not push it.
///
/// # Errors
/// If the push fails, or the cache fails and is required.
pub fn released(context: &BuildContext<'_>, released: Result<Released>) -> Result<Option<Released>> {
    match (released, context.cache.usable()) {
        (Ok(released), _) => Ok(Some(released)),
        (Err(error), Some((_, faults))) if !context.build.push => {
            faults.warn_unsaved(&error)?;
            Ok(None)
        }
        (Err(error), _) => Err(error),
    }
}
