//! A build without a plan: BuildKit decides which steps are cached.

use crate::build::{Compiled, Failed};
use crate::engine::buildkit::{Session, SolveOutcome, SolveRequest, Solved};
use crate::error::{Error, Result};
use crate::executor::solve::out_of_space;
use crate::graph::Graph;
use crate::planner::hiding::hide_found;
use crate::publish::release::Release;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;
use crate::save::Executed;
use crate::settings::CacheFrom;

/// The frontend's option that names caches.
pub const IMPORTS: &str = "cache-imports";

/// Opens the release that takes the image from the daemon. Returns `None` if the image is neither pushed nor saved to the cache.
pub async fn open_release(daemon: &DaemonBuild<'_>, imports: &CacheImports) -> Result<Option<Release>> {
    let build = daemon.context.build;
    let keep = daemon.cache_target().map(|target| target.repository);
    if !build.push && keep.is_none() {
        return Ok(None);
    }
    let tags = if build.push { &*daemon.context.tags } else { &[] };
    let known = if daemon.context.cache.gave_cache_up() { imports.latest().to_vec() } else { imports.known() };
    let open =
        Release::open(&daemon.context.registries, tags, keep.as_ref(), &build.push_settings, &known, daemon.context.events);
    Ok(Some(open.await?))
}

/// Returns whether the image contains its cache (inline cache).
pub fn exports_inline(daemon: &DaemonBuild<'_>) -> bool {
    let asked = daemon.context.build.cache_to.iter().any(|to| to.kind == "inline");
    let latest = daemon.context.build.cache_from.iter().any(|from| matches!(from, CacheFrom::Latest(_)));
    asked || latest || daemon.cache_target().is_some()
}

#[tracing::instrument(name = "execute", level = "info", skip_all)]
pub async fn solve(
    daemon: &DaemonBuild<'_>,
    session: &Session,
    request: &SolveRequest,
    options: &mut std::collections::HashMap<String, String>,
    colder: &std::collections::HashMap<String, String>,
    release: Option<&Release>,
) -> Result<(SolveOutcome, Compiled, Executed)> {
    let mut attempt = 1;
    loop {
        release.into_iter().for_each(Release::begin);
        let (events, listening) = daemon.listen();
        let mut compiled = None;
        let given = options.clone();
        let slot = &mut compiled;
        let building = daemon.buildkit.build(session, request.clone(), &events, |mut gateway| async move {
            let solved: Solved = gateway.dockerfile(given).await?;
            let compiled = slot.insert(Compiled::new(&solved));
            hide_found(compiled, daemon.context.events.hidden());
            if let Some(release) = release
                && let Ok(graph) = Graph::new(compiled.definition.clone())
            {
                release.learn_bases(&graph, &daemon.info.platform);
            }
            Ok(solved)
        });
        let from_store = options.get(IMPORTS) != colder.get(IMPORTS) && daemon.context.is_repeatable();
        let solved = tokio::select! {
            solved = building => Some(solved),
            // An overlay2 daemon would request a damaged layer again and again, for more than a minute.
            () = daemon.context.cache.found_damage(), if from_store => None,
            error = out_of_space(release) => return Err(error),
        };
        drop(events);
        let executed = listening.await.unwrap_or_default();
        let solved = match solved {
            Some(Err(status)) if from_store && daemon.context.cache.is_cache_failure(status.message()) => {
                Err(status.message().to_owned())
            }
            Some(solved) => Ok(solved),
            None => Err("a layer is damaged".to_owned()),
        };
        let solved = match solved {
            Ok(solved) => solved,
            // The store failed to supply a layer: the build starts again without the store.
            Err(why) => {
                without_store(options, colder);
                if let (Some(release), Some((cache, _))) = (release, daemon.context.cache.usable()) {
                    release.forget(&cache.repositories());
                }
                daemon.context.cache.cache_failed(&why)?;
                continue;
            }
        };
        match solved {
            Ok(solved) => {
                let compiled = compiled.ok_or_else(|| Error::build("the frontend returned no build graph"))?;
                return Ok((solved, compiled, executed));
            }
            Err(status) if daemon.context.tries_again(&mut attempt, &status).await => {}
            Err(status) => {
                let failed = compiled
                    .as_ref()
                    .and_then(|compiled| Some(Failed { definition: &compiled.definition, step: executed.failed()? }));
                return Err(daemon.failure(&status, session, failed).await);
            }
        }
    }
}

/// Removes the store from the options. BuildKit has imported the store's records into its own cache, so `no-cache` must exclude
/// these too.
pub fn without_store(
    options: &mut std::collections::HashMap<String, String>,
    colder: &std::collections::HashMap<String, String>,
) {
    match colder.get(IMPORTS) {
        Some(imports) => options.insert(IMPORTS.to_owned(), imports.clone()),
        None => options.remove(IMPORTS),
    };
    options.insert("no-cache".to_owned(), String::new());
}
