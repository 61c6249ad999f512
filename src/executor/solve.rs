//! Solves graphs in which cached images replace steps, with BuildKit. Tries again after a fault that may pass.

use crate::build::{Failed, Refusal};
use crate::engine::buildkit::{Gateway, SolveOutcome, SolveRequest, Solved};
use crate::error::Error;
use crate::executor::execution::{Execution, OrHalt};
use crate::executor::load_images;
use crate::executor::progress::SolveProgress;
use crate::graph::RewrittenGraph;
use crate::planner::replan::Replan;
use crate::publish::release::Release;

/// Solves rewritten graphs. Tries again after a temporary fault of the network or a registry.
pub async fn attempt<W, F>(
    execution: &Execution<'_>,
    rewritten: &[&RewrittenGraph],
    request: SolveRequest,
    progress: &mut SolveProgress,
    release: Option<&Release>,
    ask: W,
) -> OrHalt<SolveOutcome>
where
    W: Fn(Gateway) -> F,
    F: Future<Output = std::result::Result<Solved, Refusal>>,
{
    let Execution { daemon, session, .. } = *execution;
    let context = &daemon.context;
    // A store that hakobi gave up is in no graph any more, so it cannot be the cause.
    let from_store =
        rewritten.iter().any(|rewritten| rewritten.has_images()) && context.is_repeatable() && !context.cache.gave_cache_up();
    progress.has_states |= rewritten.iter().any(|rewritten| rewritten.has_states());
    if let Err(error) = load_images::load_sources(daemon, rewritten).await {
        context.cache.cache_failed(&error.to_string())?;
        return Err(Replan::CacheUnusable.into());
    }
    let mut attempt = 1;
    loop {
        release.into_iter().for_each(Release::begin);
        let (events, listening) = daemon.listen();
        let mut passing = None;
        let solved = tokio::select! {
            biased;
            why = context.cache.cannot_pass(), if from_store && !progress.bypasses => {
                passing = Some(why);
                None
            }
            // An overlay2 daemon would request a damaged layer again and again, for more than a minute.
            () = context.cache.found_damage(), if from_store => None,
            error = out_of_space(release) => return Err(error.into()),
            solved = daemon.buildkit.build(session, request.clone(), &events, &ask) => Some(solved),
        };
        drop(events);
        let executed = listening.await.unwrap_or_default();
        rewritten.iter().for_each(|rewritten| progress.note(rewritten, &executed));
        if let Some(why) = passing {
            return Err(Replan::BypassBaseProxy(why).into());
        }
        let why = match solved {
            Some(Ok(solved)) => {
                context.cache.warn_of_unread()?;
                // Only after a success: if a solve breaks off, nobody knows which steps still have to run (`--no-cache`).
                progress.solved.extend(rewritten.iter().flat_map(|rewritten| rewritten.names.keys().cloned()));
                return Ok(solved);
            }
            // Whatever else failed: the files changed, and hakobi must read them again.
            Some(Err(status)) if session.moved().is_some() => {
                return Err(daemon.failure(&status, session, None).await.into());
            }
            Some(Err(status)) if from_store && context.cache.is_cache_failure(status.message()) => status.message().to_owned(),
            Some(Err(status)) if progress.is_pin_failure(status.message()) => {
                context.events.note("the daemon received another remote file than hakobi saw: not saving the steps that use it");
                return Err(Replan::RemotesMoved.into());
            }
            Some(Err(status)) => {
                if context.tries_again(&mut attempt, &status).await {
                    continue;
                }
                let failed = executed.failed().and_then(|step| {
                    let of = rewritten.iter().find(|rewritten| rewritten.definition.metadata.contains_key(step))?;
                    Some(Failed { definition: &of.definition, step })
                });
                return Err(daemon.failure(&status, session, failed).await.into());
            }
            None => "a layer is damaged".to_owned(),
        };
        context.cache.cache_failed(&why)?;
        return Err(Replan::CacheUnusable.into());
    }
}

/// Waits until TMPDIR has no room for what the daemon hands over, and returns that error. Never returns if it has.
pub async fn out_of_space(release: Option<&Release>) -> Error {
    match release {
        Some(release) => release.out_of_space().await,
        None => std::future::pending().await,
    }
}
