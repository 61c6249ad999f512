//! Compiles the Dockerfile with the daemon's frontend, and plans the result.

use std::collections::HashMap;

use crate::build::{Compiled, Input};
use crate::cache::record_reader::RecordReader;
use crate::engine::EngineInfo;
use crate::engine::buildkit::{Session, SolveRequest, Solved};
use crate::error::{Error, Result};
use crate::plan::KnownFacts;
use crate::planner::build_plan::BuildPlan;
use crate::planner::plan;
use crate::planner::recall::DaemonlessPlan;
use crate::run::daemon::DaemonBuild;

/// Compiles the Dockerfile without running a step. Returns `None` if the result is not a single image.
///
/// # Errors
/// If the frontend fails.
#[tracing::instrument(level = "info", skip_all)]
pub async fn compile(daemon: &DaemonBuild<'_>, session: &Session, options: &HashMap<String, String>) -> Result<Option<Compiled>> {
    let mut attempt = 1;
    loop {
        let mut compiled = None;
        let (slot, given) = (&mut compiled, options.clone());
        let request = SolveRequest { entitlements: daemon.context.build.entitlements.clone(), ..SolveRequest::default() };
        let work = |mut gateway: crate::engine::buildkit::Gateway| async move {
            let solved: Solved = gateway.dockerfile(given).await?;
            let compiled = Compiled { engine: engine(&daemon.info), ..Compiled::new(&solved) };
            if solved.has_graphs() {
                *slot = Some((solved.references.len() == 1).then_some(compiled));
            }
            // BuildKit would build a graph that this call returns.
            Ok(Solved::default())
        };
        match daemon.buildkit.build(session, request, daemon.context.events, work).await {
            Ok(_) => return compiled.ok_or_else(|| Error::build("the frontend returned no build graph")),
            Err(status) if daemon.context.tries_again(&mut attempt, &status).await => {}
            Err(status) => return Err(daemon.failure(&status, session, None).await),
        }
    }
}

/// Plans the build, and reuses the facts of an earlier plan. Returns `None` if the result is not a single image, or the cache is
/// unusable.
pub async fn compile_and_plan(
    daemon: &DaemonBuild<'_>,
    session: &Session,
    options: &HashMap<String, String>,
    input: &Input,
    ahead: DaemonlessPlan,
) -> Result<Option<BuildPlan>> {
    let Some((cache, faults)) = daemon.context.cache.usable() else { return Ok(None) };
    let (known, key) = match ahead {
        DaemonlessPlan::Open(plan) if is_of_engine(&plan, &daemon.info) => return Ok(Some(*plan)),
        DaemonlessPlan::Open(plan) => (plan.facts, plan.compiled_by),
        DaemonlessPlan::Nothing(key) => (KnownFacts::default(), key),
        DaemonlessPlan::Done => return Ok(None),
    };
    let Some(compiled) = compile(daemon, session, options).await? else { return Ok(None) };
    let records = RecordReader::new(cache, faults);
    let mut plan = plan::plan(&daemon.context, compiled, &input.directories, &records, known, Some(&daemon.docker)).await?;
    plan.is_new_form = key.is_some();
    plan.compiled_by = key;
    Ok(Some(plan))
}

/// Returns whether this engine can execute the recalled plan without compiling again. That requires the engine of the compiled form.
/// It also requires a reason: compiling would pull a frontend, or ask a registry that does not answer.
pub fn is_of_engine(plan: &BuildPlan, info: &EngineInfo) -> bool {
    let brought = plan.compiled_by.as_ref().is_some_and(|key| key.frontend.is_some());
    (brought || plan.recorded_bases.is_some()) && plan.compiled.engine == engine(info)
}

/// Returns the part of a graph's key that the engine determines: its version and image store.
pub fn engine(info: &EngineInfo) -> String {
    format!("{} {}", info.version, info.store.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StoreKind;

    #[test]
    fn the_text_of_an_engine_is_what_it_was() {
        let info = |store| EngineInfo {
            id: String::new(),
            version: "28.5.2".to_owned(),
            api: (1, 51),
            store,
            platform: "linux/amd64".to_owned(),
        };
        assert_eq!(engine(&info(StoreKind::GraphDriver)), "28.5.2 GraphDriver");
        assert_eq!(engine(&info(StoreKind::Containerd)), "28.5.2 Containerd");
    }
}
