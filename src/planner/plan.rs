//! Plans a compiled build: looks at its sources, computes keys of its steps, and looks them up in the cache.

use std::collections::HashMap;

use futures::future::join_all;

use crate::build::Compiled;
use crate::cache::record_reader::RecordReader;
use crate::domain::seconds_now;
use crate::engine::Docker;
use crate::engine::buildkit::LocalDirs;
use crate::error::{Error, Result};
use crate::graph::{Graph, Input, Op};
use crate::plan::{KnownFacts, possible_mounts};
use crate::planner::build_plan::BuildPlan;
use crate::planner::hiding::hide_found;
use crate::planner::local_sources::local;
use crate::planner::{auto_mounts, bases, lookup, remote_sources};
use crate::run::context::BuildContext;
use crate::settings::MountMode;

/// The build argument that the frontend puts before the IDs of cache mounts.
const MOUNT_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// Plans a compiled build. hakobi does not look again at sources in `known`. Without a daemon, images that only a daemon has are
/// not known.
#[tracing::instrument(name = "plan", level = "info", skip_all)]
pub async fn plan(
    context: &BuildContext<'_>,
    compiled: Compiled,
    directories: &LocalDirs,
    records: &RecordReader<'_>,
    known: KnownFacts,
    docker: Option<&Docker>,
) -> Result<BuildPlan> {
    hide_found(&compiled, context.events.hidden());
    let graph = Graph::new(compiled.definition.clone())
        .map_err(|error| Error::build("failed to parse the frontend's build graph").because(&error))?;
    let mut facts = known;
    let sources: Vec<&Op> = graph.below(graph.result()).into_iter().filter(|op| op.inputs.is_empty()).collect();
    let new = |op: &&&Op| !facts.images.contains_key(&op.digest) && !facts.locals.contains_key(&op.digest);
    let (images, remotes, locals) = tokio::join!(
        join_all(sources.iter().filter(new).map(|op| bases::base(context, op, docker))),
        remote_sources::ask(context, &sources, records, &facts),
        join_all(sources.iter().filter(new).map(|op| local(op, directories))),
    );
    let mut bases = HashMap::new();
    for (digest, image) in images.into_iter().flatten() {
        let layers = image.map(|(layers, known)| {
            bases.extend(known.map(|known| (Input { step: digest.clone(), output: 0 }, known)));
            layers
        });
        facts.images.insert(digest, layers);
    }
    facts.locals.extend(locals.into_iter().flatten());
    for (digest, holds, record) in remotes? {
        facts.remotes.insert(digest, holds);
        facts.asked.extend(record);
    }
    let namespace = context.build.build_args.get(MOUNT_NAMESPACE).map(String::as_str).unwrap_or_default();
    let wanted = if context.build.mounts.automatic { possible_mounts(&graph, namespace) } else { Vec::new() };
    auto_mounts::recall_paths(&wanted, &mut facts, records).await?;
    let graph = auto_mounts::mounted(graph, &wanted, &facts)
        .map_err(|error| Error::build("failed to add cache mounts to the frontend's build graph").because(&error))?;
    let mounts_key =
        context.cache.usable().map(|(cache, _)| cache.mounts_key()).filter(|_| context.build.mounts.mode != MountMode::Off);
    let mut plan = BuildPlan {
        mounts_key,
        bases,
        directories: directories.clone(),
        auto_mounts: wanted,
        since: context.build.max_age.map(|age| seconds_now().saturating_sub(age.as_secs())),
        ..BuildPlan::new(compiled, graph, facts)
    };
    plan.align_history();
    lookup::decide(&mut plan, records).await?;
    Ok(plan)
}
