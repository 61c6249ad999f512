//! What stands in for steps and sources in a graph: images of the cache, base images that come through hakobi, local sources.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::domain::{ImageRef, Platform, Selector};
use crate::engine::buildkit::pb;
use crate::error::{Error, Result};
use crate::executor::execution::Execution;
use crate::executor::graph_errors::broken;
use crate::graph::{Input, Substitution};
use crate::handover::KnownImage;
use crate::local_registry::CacheRepository;
use crate::plan::{Layer, bare_image};
use crate::planner::bases;
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::Release;
use crate::registry::Source as _;
use crate::run::daemon::DaemonBuild;
use crate::run::transport::LayerTransport;

/// What is kept, as images that the daemon can pull; and local sources under the name of their content: a daemon that has an
/// older copy of them must not take a file of the same size and time for the same.
pub fn of_plan(execution: &Execution<'_>, plan: &BuildPlan, release: Option<&Release>) -> Result<HashMap<Input, Substitution>> {
    let Execution { daemon, cache, .. } = *execution;
    let own = cache.own().ok_or_else(|| Error::build("the cache has no scope"))?;
    let mut substitutions = HashMap::new();
    let is_there = plan.is_there();
    for (state, record) in &plan.decision.cached {
        if let Some(release) = release {
            release.learn(&record.blobs(), &record.diff_ids(), own.repository());
        }
        if is_there {
            continue;
        }
        let name = plan.graph.op(&state.step).map(|op| &*op.name).unwrap_or_default();
        let name = format!("[hakobi] from the cache: {name}");
        substitutions.insert(state.clone(), offered(daemon, own, &plan.platform()?, &record.layers, name)?);
    }
    let passes = daemon.transport == LayerTransport::Registry && cache.has_begun() && own.passes();
    if passes && !is_there && daemon.context.is_repeatable() && daemon.context.cache.trusts_store() {
        // Of those alone that something open is built on: others need not come at all.
        let open = plan.graph.rewritten(plan.graph.result(), &substitutions, &HashSet::new()).map_err(|error| broken(&error))?;
        for (source, base) in plan.bases.iter().filter(|(source, _)| open.names.contains_key(&source.step)) {
            match through(execution, plan, source, base) {
                Ok(substitution) => substitutions.insert(source.clone(), substitution),
                // The daemon can bring it as well.
                Err(error) => {
                    daemon.context.events.note(format!("base images do not come through hakobi: {}", error.message()));
                    break;
                }
            };
        }
    }
    for (source, record) in plan.recorded_bases.iter().flatten() {
        if let Some(release) = release {
            release.learn(&record.blobs(), &record.diff_ids(), own.repository());
        }
        // Also where the daemon made the rest itself: it would ask the registry what the base is.
        if let Entry::Vacant(base) = substitutions.entry(source.clone()) {
            let name = plan.graph.op(&source.step).map(|op| op.name.clone()).unwrap_or_default();
            base.insert(offered(daemon, own, &plan.platform()?, &record.layers, name)?);
        }
    }
    for op in plan.graph.below(plan.graph.result()) {
        let Some(pb::op::Op::Source(source)) = &op.op.op else { continue };
        if !source.identifier.starts_with("local://") {
            continue;
        }
        let tree = plan.facts.locals.get(&op.digest).and_then(|tree| tree.as_ref().ok());
        let content = tree.and_then(|tree| tree.digest(&[Selector::everything()]).ok());
        // What is not known may be anything: nothing of the daemon's is the same.
        let content = content.map_or_else(|| format!("{:032x}", rand::random::<u128>()), |content| content.to_string());
        let mut attributes = source.attrs.clone();
        let hint = attributes.entry("local.sharedkeyhint".to_owned()).or_default();
        // Copies that were not compared as they were sent have other names.
        *hint = format!("{hint} compared {content}");
        // A graph that was remembered names the session of that build, and BuildKit takes a source of the same session for the
        // same files (`local.CacheKey`). Without a name it is this run's.
        attributes.remove("local.session");
        let substitution = Substitution { identifier: source.identifier.clone(), attributes, name: op.name.clone() };
        substitutions.insert(Input { step: op.digest.clone(), output: 0 }, substitution);
    }
    substitutions.extend(plan.pins());
    Ok(substitutions)
}

/// A base image as one that the daemon pulls through the endpoint: it is read once, for the daemon and for the store.
pub fn through(execution: &Execution<'_>, plan: &BuildPlan, source: &Input, base: &KnownImage) -> Result<Substitution> {
    let Execution { daemon, cache, .. } = *execution;
    cache.pass_through(base, &daemon.context.registries)?;
    let own = cache.own().ok_or_else(|| Error::build("the cache has no scope"))?;
    let name = plan.graph.op(&source.step).map(|op| op.name.clone()).unwrap_or_default();
    let platform = serde_json::from_slice::<Platform>(&base.config).map_err(|error| broken(&error))?;
    offered(daemon, own, &platform, &bases::layers(base), name)
}

/// Layers as an image that the daemon can take.
pub fn offered(
    daemon: &DaemonBuild<'_>,
    own: &CacheRepository,
    platform: &Platform,
    layers: &[Layer],
    name: String,
) -> Result<Substitution> {
    let image = bare_image(platform, layers).map_err(|error| broken(&error))?;
    Ok(source(daemon, &own.offer(&image.manifest, image.config), name))
}

/// An offered image as a source of the graph.
pub fn source(daemon: &DaemonBuild<'_>, offered: &ImageRef, name: String) -> Substitution {
    match (daemon.transport, &offered.digest) {
        (LayerTransport::Archive, Some(digest)) => Substitution {
            identifier: format!("docker-image://{}", daemon.loaded.name(digest)),
            attributes: [("image.resolvemode".to_owned(), "local".to_owned())].into(),
            name,
        },
        _ => Substitution { identifier: format!("docker-image://{offered}"), attributes: [].into(), name },
    }
}
