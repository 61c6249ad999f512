//! Builds the substitutions of a graph: cached images for steps, base images that pass through hakobi, and named local sources.

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

/// Returns cached states as images that the daemon can pull, and local sources under the name of their content. A daemon with an
/// older copy of these must not mistake a changed file of the same size and time for the old one.
pub fn of_plan(execution: &Execution<'_>, plan: &BuildPlan, release: Option<&Release>) -> Result<HashMap<Input, Substitution>> {
    let Execution { daemon, cache, .. } = *execution;
    let own = cache.own().ok_or_else(|| Error::build("the cache has no scope"))?;
    let mut substitutions = HashMap::new();
    let daemon_has_all = plan.daemon_has_all();
    for (state, record) in &plan.decision.cached {
        if let Some(release) = release {
            release.learn(&record.blobs(), &record.diff_ids(), own.repository());
        }
        if daemon_has_all {
            continue;
        }
        let name = plan.graph.op(&state.step).map(|op| &*op.name).unwrap_or_default();
        let name = format!("[hakobi] from the cache: {name}");
        substitutions.insert(state.clone(), offered(daemon, own, &plan.platform()?, &record.layers, name)?);
    }
    let passes = daemon.transport == LayerTransport::Registry && cache.has_begun() && own.passes();
    if passes && !daemon_has_all && daemon.context.is_repeatable() && daemon.context.cache.trusts_cache() {
        // Only base images that an open step builds on: the daemon need not pull the others.
        let open = plan.graph.rewritten(plan.graph.result(), &substitutions, &HashSet::new()).map_err(|error| broken(&error))?;
        for (source, base) in plan.bases.iter().filter(|(source, _)| open.names.contains_key(&source.step)) {
            match through(execution, plan, source, base) {
                Ok(substitution) => substitutions.insert(source.clone(), substitution),
                // The daemon can pull it itself.
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
        // This also holds if the daemon made the other states itself: otherwise it would ask the registry for the base image.
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
        // The content is not known, so a random name keeps the daemon from reusing its own copy.
        let times = execution.session.chosen_times();
        let times = times
            .filter(|times| !times.is_empty())
            .and_then(|times| Some(times.digest(source.identifier.strip_prefix("local://")?)));
        let content = content.map_or_else(|| format!("{:032x}", rand::random::<u128>()), |content| content.to_string());
        let mut attributes = source.attrs.clone();
        let hint = attributes.entry("local.sharedkeyhint".to_owned()).or_default();
        // Copies that hakobi did not compare during the transfer have other names.
        *hint = format!("{hint} compared {content}");
        if let Some(times) = times {
            hint.push_str(&format!(" at {times}"));
        }
        // A recalled graph names the session of an earlier build, and BuildKit considers sources of one session the same files
        // (`local.CacheKey`). Without a name, the source belongs to this run's session.
        attributes.remove("local.session");
        let substitution = Substitution { identifier: source.identifier.clone(), attributes, name: op.name.clone() };
        substitutions.insert(Input { step: op.digest.clone(), output: 0 }, substitution);
    }
    substitutions.extend(plan.pins());
    Ok(substitutions)
}

/// Returns a base image as one that the daemon pulls through hakobi's endpoint. hakobi reads it once, for the daemon and for the
/// store.
pub fn through(execution: &Execution<'_>, plan: &BuildPlan, source: &Input, base: &KnownImage) -> Result<Substitution> {
    let Execution { daemon, cache, .. } = *execution;
    cache.pass_through(base, &daemon.context.registries)?;
    let own = cache.own().ok_or_else(|| Error::build("the cache has no scope"))?;
    let name = plan.graph.op(&source.step).map(|op| op.name.clone()).unwrap_or_default();
    let platform = serde_json::from_slice::<Platform>(&base.config).map_err(|error| broken(&error))?;
    offered(daemon, own, &platform, &bases::layers(base), name)
}

/// Offers layers as an image that the daemon can pull.
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

/// Returns an offered image as a source of the graph.
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
