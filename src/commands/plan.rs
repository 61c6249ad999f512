//! `hakobi plan`: says what a build would do, and why. It runs nothing and writes nothing.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use tokio::io::AsyncRead;

use super::upkeep::Answer;
use crate::build::{Input, frontend_options};
use crate::cache::opened::OpenedCache;
use crate::cache::record_reader::RecordReader;
use crate::commands::explain::advice_report;
use crate::commands::{daemonless, mounts};
use crate::domain::Digest;
use crate::engine::buildkit::Outputs;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::executor::mount_outlook::outlooks;
use crate::executor::{append_base, skeleton};
use crate::graph::{self, Key};
use crate::output::{AdviceReport, MountReport, StepReport, StepStatus, Tier, one_line};
use crate::plan::{Inputs, Verdict, advise, appendable, explain, is_internal};
use crate::planner::build_plan::BuildPlan;
use crate::planner::hiding::{hide_arguments, hide_declared};
use crate::planner::recall::{self, DaemonlessPlan};
use crate::planner::{auto_mounts, compile, named_contexts};
use crate::registry::Registries;
use crate::run::built::add_not_appended;
use crate::run::context::BuildContext;
use crate::run::daemon::{Daemon, DaemonBuild};
use crate::run::loaded::Loaded;
use crate::run::transport::LayerTransport;
use crate::settings::{BuildSettings, Settings};

/// The answer of the command.
#[derive(Serialize)]
struct PlanReport {
    tier: Tier,
    steps: Vec<StepReport>,
    advice: Vec<AdviceReport>,
    mounts: Vec<MountReport>,
}

/// Plans with the daemon's frontend.
///
/// # Errors
/// If the Dockerfile cannot be compiled, or there are several platforms.
async fn compiled<'a>(
    context: BuildContext<'a>,
    daemon: Daemon,
    mut input: Input,
    ahead: DaemonlessPlan,
) -> Result<(BuildPlan, BuildContext<'a>)> {
    let Daemon { docker, buildkit, info } = daemon;
    let run = DaemonBuild { context, docker, buildkit, info, transport: LayerTransport::Registry, loaded: Loaded::default() };
    let mut options = frontend_options(run.context.build, &input, &[]);
    run.resolve_host_gateway(&mut options).await?;
    let session = run.session(&mut input, &Outputs::default(), None).await?;
    let several = || Error::usage("planning requires a single platform").hint("name one platform with --platform");
    let plan = compile::compile_and_plan(&run, &session, &options, &input, ahead).await?.ok_or_else(several)?;
    Ok((plan, run.context))
}

/// Returns a line for each base image of which the cache does not say whether `--auto-mounts` may mount something on it.
fn not_looked(plan: &BuildPlan) -> Vec<String> {
    let bases = auto_mounts::unknown(plan);
    let images = bases.keys().filter_map(|base| plan.graph.op(base)?.image());
    let names = images.map(|image| image.split('@').next().unwrap_or(image));
    names.map(|name| format!("mounts      not known yet for commands on {name}: a build looks into the image first\n")).collect()
}

/// Returns what a build would do.
///
/// # Errors
/// If the Dockerfile cannot be compiled, or there is no cache to compare it with.
pub async fn plan(
    settings: &Settings,
    build: &BuildSettings,
    json: bool,
    events: &Events,
    stdin: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Answer> {
    hide_arguments(build, events.hidden());
    let Some(cache) = &build.store else {
        return Err(Error::usage("planning requires a cache")
            .hint("name one with --cache s3://BUCKET/PREFIX, --cache oci://HOST/REPOSITORY or --cache DIR"));
    };
    let registries = Registries::new(&settings.registries, events.clone());
    let opened = Some(OpenedCache::open(cache, build, &registries, events, false).await?);
    let context = BuildContext::new(settings, build, events, registries, build.tags.clone(), opened);
    let mut input = Input::open(build, stdin).await?;
    hide_declared(&input, events.hidden());
    let Some((session, faults)) = context.cache.usable().filter(|_| context.plans(&input)) else {
        return Err(Error::usage("planning requires a usable cache and a context in a directory"));
    };
    let records = RecordReader::new(session, faults);
    let daemon = Daemon::connect(&settings.daemon).await;
    let at_hand = daemon.as_ref().ok().map(|daemon| (&daemon.docker, &daemon.info));
    named_contexts::resolve_contexts(&context, &mut input, at_hand.map(|(docker, _)| docker)).await;
    let ahead = recall::remembered_plan(&context, &input, &records, at_hand).await?;
    let (plan, context) = match (ahead, daemon) {
        (DaemonlessPlan::Open(plan), _) => (*plan, context),
        (ahead, Err(error)) => return Err(daemonless::needs_daemon(&context, error, &ahead, &input).await),
        (ahead, Ok(daemon)) => compiled(context, daemon, input, ahead).await?,
    };
    let Some((session, faults)) = context.cache.usable() else { return Err(Error::usage("failed to use the cache")) };
    let remembered = RecordReader::new(session, faults);
    let mut inputs = Inputs::new(&plan.graph, &plan.keys, &plan.facts, context.events.hidden());
    let before = remembered.one(&session.inputs_key()).await?;
    crate::plan::measure(&mut inputs, &plan.graph, &HashMap::new(), before.as_ref());
    let mut reasons = explain(&plan.graph, &plan.decision, before.as_ref(), &inputs);
    let open = plan.graph.below(plan.graph.result()).into_iter().filter(|op| plan.decision.runs(&op.digest));
    let has_commands = open.into_iter().any(graph::Op::is_command);
    // The files are appended to the layers below, which are not downloaded.
    let appends = match appendable(&plan.graph, &plan.decision).filter(|_| !has_commands) {
        Some(open) => {
            let below = append_base::known_base(&plan, &open, &remembered).await?;
            let stays = skeleton::not_appended(&plan, &open, below.as_ref(), &remembered).await?;
            if let Some(stays) = &stays {
                add_not_appended(reasons.entry(stays.step.clone()).or_default(), &stays.why);
            }
            below.is_some() && stays.is_none()
        }
        None => false,
    };
    let places = plan.graph.places();
    let mut steps = Vec::new();
    let mut lines = Vec::new();
    for op in plan.graph.below(plan.graph.result()) {
        let Some(verdict) = plan.decision.verdicts.get(&op.digest).filter(|_| !is_internal(op)) else { continue };
        let (status, word) = match verdict {
            Verdict::Hit => (StepStatus::Hit, "kept"),
            Verdict::Miss => (StepStatus::Miss, "runs"),
            Verdict::Skipped => (StepStatus::Skipped, "not needed"),
            Verdict::Uncacheable(_) => (StepStatus::Uncacheable, "runs"),
        };
        let reason = reasons.get(&op.digest).cloned().unwrap_or_default();
        let line = places.get(&op.digest.to_string()).and_then(|place| u32::try_from(place.line).ok()).unwrap_or(0);
        let behind = if reason.is_empty() { String::new() } else { format!("\n            {}", one_line(&reason)) };
        lines.push(format!("{word:<10}  {}{behind}\n", one_line(&op.name)));
        let mounts = outlooks(&plan, verdict.runs().then_some(op));
        lines.extend(mounts.iter().map(|mount| format!("            {}\n", one_line(&mounts::planned(mount).planned()))));
        steps.push(StepReport {
            stage: graph::stage_of(&op.name).map(|stage| stage.0).unwrap_or_default(),
            line,
            instruction: graph::instruction_of(&op.name).to_owned(),
            status,
            reason,
            key: match plan.keys.state(&graph::Input { step: op.digest.clone(), output: 0 }) {
                Key::Known(key) => key.to_string(),
                _ => String::new(),
            },
        });
    }
    let has_hits = steps.iter().any(|step| step.status == StepStatus::Hit);
    let tier = match (plan.decision.unchanged, appends, has_hits) {
        (true, ..) => Tier::Unchanged,
        (false, true, _) => Tier::Append,
        (false, false, true) => Tier::Partial,
        (false, false, false) => Tier::Cold,
    };
    let below = plan.graph.below(plan.graph.result()).into_iter();
    let runs: HashSet<Digest> = below.map(|op| op.digest.clone()).filter(|step| plan.decision.runs(step)).collect();
    let advice = advise(&plan.graph, &runs, before.as_ref(), &inputs);
    let text = if json {
        let advice = advice.into_iter().map(advice_report).collect();
        let open = plan.open_mounts().into_iter().map(|(op, _)| op);
        let mounts = outlooks(&plan, open).iter().map(mounts::planned).collect();
        serde_json::to_string_pretty(&PlanReport { tier, steps, advice, mounts }).unwrap_or_default() + "\n"
    } else {
        let runs = steps.iter().filter(|step| matches!(step.status, StepStatus::Miss | StepStatus::Uncacheable)).count();
        lines.push(match tier {
            Tier::Unchanged => "nothing changed: no step runs\n".to_owned(),
            Tier::Append => format!(
                "{runs} of {} steps run: only file operations, which need no base image if the image is pushed\n",
                steps.len()
            ),
            _ => format!("{runs} of {} steps run\n", steps.len()),
        });
        lines.extend(not_looked(&plan));
        lines.extend(advice.iter().map(|advice| format!("advice      {}:{}: {}\n", advice.file, advice.line, advice.text)));
        lines.concat()
    };
    Ok(Answer { text, exit_code: 0 })
}
