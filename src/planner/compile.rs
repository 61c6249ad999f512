//! Has the daemon's frontend compile the Dockerfile, and plans with what it gives.

use std::collections::HashMap;

use crate::build::{Compiled, Input};
use crate::cache::record_reader::Remembered;
use crate::engine::EngineInfo;
use crate::engine::buildkit::{Session, SolveRequest, Solved};
use crate::error::{Error, Result};
use crate::plan::KnownFacts;
use crate::planner::build_plan::BuildPlan;
use crate::planner::plan;
use crate::planner::recall::Ahead;
use crate::run::daemon::DaemonBuild;

/// Has the Dockerfile compiled, without running anything. `None` where there is not one image to plan for.
pub async fn compile(daemon: &DaemonBuild<'_>, session: &Session, options: &HashMap<String, String>) -> Result<Option<Compiled>> {
    let mut attempt = 1;
    loop {
        let mut compiled = None;
        let (slot, given) = (&mut compiled, options.clone());
        let request = SolveRequest { entitlements: daemon.job.build.entitlements.clone(), ..SolveRequest::default() };
        let work = |mut gateway: crate::engine::buildkit::Gateway| async move {
            let solved: Solved = gateway.dockerfile(given).await?;
            let compiled = Compiled { engine: engine(&daemon.info), ..Compiled::of(&solved) };
            if solved.has_graphs() {
                *slot = Some((solved.references.len() == 1).then_some(compiled));
            }
            // What is given back is built.
            Ok(Solved::default())
        };
        match daemon.buildkit.build(session, request, daemon.job.events, work).await {
            Ok(_) => return compiled.ok_or_else(|| Error::build("the frontend gave no graph")),
            Err(status) if daemon.job.tries_again(&mut attempt, &status).await => {}
            Err(status) => return Err(daemon.failure(&status, session, None).await),
        }
    }
}

/// Plans the build, with what is known of it already. `None` where there is not one image to plan for.
pub async fn compile_and_plan(
    daemon: &DaemonBuild<'_>,
    session: &Session,
    options: &HashMap<String, String>,
    input: &Input,
    ahead: Ahead,
) -> Result<Option<BuildPlan>> {
    let Some((kept, faults)) = daemon.job.cache.kept() else { return Ok(None) };
    let (known, key) = match ahead {
        Ahead::Open(planned) if is_of_engine(&planned, &daemon.info) => return Ok(Some(*planned)),
        Ahead::Open(planned) => (planned.facts, planned.compiled_by),
        Ahead::Nothing(key) => (KnownFacts::default(), key),
        Ahead::Done => return Ok(None),
    };
    let Some(compiled) = compile(daemon, session, options).await? else { return Ok(None) };
    let records = Remembered::of(kept, faults);
    let mut planned = plan::plan(&daemon.job, compiled, &input.directories, &records, known, Some(&daemon.docker)).await?;
    planned.is_new_form = key.is_some();
    planned.compiled_by = key;
    Ok(Some(planned))
}

/// Whether it was made of the compiled form that this engine would give, were it not for a frontend that it would have to pull or
/// a registry that does not answer.
pub fn is_of_engine(plan: &BuildPlan, info: &EngineInfo) -> bool {
    let brought = plan.compiled_by.as_ref().is_some_and(|key| key.frontend.is_some());
    (brought || plan.recorded_bases.is_some()) && plan.compiled.engine == engine(info)
}

/// What a frontend's graph depends on besides the frontend: what the engine says it can do.
pub fn engine(info: &EngineInfo) -> String {
    format!("{} {:?}", info.version, info.store)
}
