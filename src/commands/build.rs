//! `hakobi build`: opens, plans, executes, records and reports.

use std::time::Instant;

use tokio::io::AsyncRead;

use crate::build::{Input, frontend_options};
use crate::cache::last_cold::LastCold;
use crate::cache::opened::{OpenedCache, cache_report};
use crate::commands::by_plan::{self, Start};
use crate::commands::outcome::{self, write_metadata};
use crate::commands::upkeep::prune::prune_to;
use crate::commands::{call, daemonless, lazy};
use crate::disk::DiskLoss;
use crate::domain::{Descriptor, ImageRef};
use crate::engine::buildkit::Outputs;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::executor::buildkit_only::{self, without_store};
use crate::executor::request;
use crate::graph::Graph;
use crate::output::{CiReport, Deployable, Metadata, Outcome, StrategyUsed, can_hand_off, can_write, hand_off, remove_iid_file};
use crate::plan::explained;
use crate::planner::hiding::{hide_arguments, hide_declared, warn_of_secrets};
use crate::planner::named_contexts;
use crate::planner::recall::DaemonlessPlan;
use crate::push::preflight;
use crate::recorder::{cold_build, run_seconds, stage_index};
use crate::registry::Registries;
use crate::run::built::Built;
use crate::run::context::BuildContext;
use crate::run::daemon::{Daemon, DaemonBuild, engine_report};
use crate::run::imports;
use crate::run::loaded::Loaded;
use crate::run::transport::LayerTransport;
use crate::settings::{BuildSettings, DaemonChoice, DaemonSettings, Settings};

/// Runs a build to its end.
///
/// # Errors
/// If a requested step, output or push fails; faults of the cache are warnings.
pub async fn build(
    settings: &Settings,
    build: &BuildSettings,
    events: &Events,
    stdin: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Built> {
    let began = Instant::now();
    let loss = match Box::pin(attempt(settings, build, events, stdin, began)).await? {
        Attempt::Done(built) => return Ok(*built),
        Attempt::DaemonLost(loss) => loss,
    };
    events.warning(format!("hakobi's own daemon was lost, building again with the machine's: {loss}"));
    let daemon = DaemonSettings { choice: DaemonChoice::Stock, ..build.daemon.clone() };
    let stock = BuildSettings { daemon, ..build.clone() };
    match Box::pin(attempt(settings, &stock, events, tokio::io::empty(), began)).await? {
        Attempt::Done(built) => Ok(*built),
        Attempt::DaemonLost(loss) => Err(Error::build(loss.why)),
    }
}

/// The end of one attempt at a build.
enum Attempt {
    Done(Box<Built>),
    /// The daemon of hakobi's own was lost, for this reason. What it built does not count.
    DaemonLost(DiskLoss),
}

async fn attempt(
    settings: &Settings,
    build: &BuildSettings,
    events: &Events,
    stdin: impl AsyncRead + Send + Unpin + 'static,
    began: Instant,
) -> Result<Attempt> {
    hide_arguments(build, events.hidden());
    warn_of_secrets(build, events);
    if let Some(path) = &build.iid_file {
        remove_iid_file(path)?;
    }
    can_hand_off(&build.hand_off)?;
    can_write([&build.iid_file, &build.metadata_file].into_iter().flatten().map(|path| &**path))?;
    let registries = Registries::new(&settings.registries, events.clone());
    let mut built = Built::default();
    built.report.version = env!("CARGO_PKG_VERSION").to_owned();
    built.report.strategy = StrategyUsed::Daemon;
    built.report.ci = CiReport { provider: build.ci.provider.to_owned(), commit: build.ci.commit.clone().unwrap_or_default() };
    let mut tags = build.tags.clone();
    if build.push {
        let step = events.step("[hakobi] checking the registries");
        let looked = preflight(&registries, &tags, &build.push_settings).await;
        match &looked {
            Ok(_) => step.done(),
            Err(error) => step.failed(error),
        }
        let looked = looked?;
        for (tag, there) in &looked.skipped {
            events.note(format!("skipping {tag}: it already exists ({})", there.digest));
        }
        for repository in &looked.created {
            events.note(format!("created the repository {repository}"));
        }
        tags = looked.push;
        if tags.is_empty() {
            report_skipped(build, &looked.skipped, events)?;
            built.report.outcome = Outcome::Skipped;
            built.report.seconds.total = began.elapsed().as_secs_f64();
            return Ok(Attempt::Done(Box::new(built)));
        }
    }
    let store = match &build.store {
        Some(store) if build.call == "build" => {
            built.report.cache = cache_report(store);
            Some(OpenedCache::open(store, build, &registries, events, build.push).await?)
        }
        _ => None,
    };
    let last_cold = LastCold::look(store.as_ref());
    // With a daemon of its own, hakobi need not have the machine's.
    let daemon = match build.daemon.choice {
        DaemonChoice::Lazy => Err(Error::no_daemon("not asked")),
        DaemonChoice::Auto | DaemonChoice::Stock => Daemon::connect(&settings.daemon).await,
    };
    if let Ok(daemon) = &daemon {
        crate::run::leftovers::clear(&daemon.docker).await;
    }
    let mut input = Input::open(build, stdin).await?;
    hide_declared(&input, events.hidden());
    let context = BuildContext::new(settings, build, events, registries, tags, store);
    let at_hand = daemon.as_ref().ok().map(|daemon| (&daemon.docker, &daemon.info));
    named_contexts::resolve_contexts(&context, &mut input, at_hand.map(|(docker, _)| docker)).await;
    let ahead = match Box::pin(daemonless::ahead(&context, &mut built, &input, at_hand, began)).await {
        Ok(ahead) => ahead,
        Err(error) => {
            // A tag may have failed after the image was saved.
            let _ = flush(&context, &mut built).await;
            return Err(error);
        }
    };
    if !matches!(ahead, DaemonlessPlan::Done) {
        let (own, daemon) = match lazy::start(&context, &input).await {
            Some((own, daemon)) => (Some(own), Ok(daemon)),
            None if build.daemon.choice == DaemonChoice::Lazy => (None, Daemon::connect(&settings.daemon).await),
            None => (None, daemon),
        };
        let Daemon { docker, buildkit, info } = match daemon {
            Ok(daemon) => daemon,
            Err(error) => return Err(daemonless::needs_daemon(&context, error, &ahead, &input).await),
        };
        let moves = build.call == "build" && (build.push || context.cache.opened.is_some());
        let transport = if moves { Some(LayerTransport::choose(settings.transport, &docker).await?) } else { None };
        built.report.engine = engine_report(&info, transport);
        let run = DaemonBuild {
            context,
            docker,
            buildkit,
            info,
            transport: transport.unwrap_or(LayerTransport::Registry),
            loaded: Loaded::default(),
        };
        let lost = async {
            match &own {
                Some(own) => own.lazy.lost().await,
                None => std::future::pending().await,
            }
        };
        let (done, lost) = tokio::select! {
            done = with_daemon(&run, &mut built, input, ahead, began) => (done, None),
            loss = lost => (Ok(()), Some(loss)),
        };
        let lost = match (lost, &done, &own) {
            (None, Err(_), Some(own)) => own.gone(&run.docker).await,
            (lost, ..) => lost,
        };
        let own = match (lost, own) {
            (Some(loss), Some(own)) => {
                own.forget(&run.context, &loss).await;
                return Ok(Attempt::DaemonLost(loss));
            }
            (_, own) => own,
        };
        if done.is_ok() && built.ran_all {
            cold_build::record_cold_build(&run.context, began.elapsed().as_secs_f64()).await;
        }
        let is_lazy = own.is_some();
        let kept = match own {
            Some(own) if done.is_ok() => {
                let at = Instant::now();
                let kept = own.end(&run.context, &run.buildkit).await;
                built.report.seconds.save += at.elapsed().as_secs_f64();
                kept.map(|disk| built.report.engine.disk = Some(disk))
            }
            _ => Ok(()),
        };
        if done.is_ok() && built.ran_commands {
            run_seconds::record_run(&run.context, is_lazy, began.elapsed().as_secs_f64()).await;
        }
        let flushed = flush(&run.context, &mut built).await;
        done?;
        kept?;
        flushed?;
    } else {
        flush(&context, &mut built).await?;
    }
    built.report.last_cold = last_cold.found().await;
    built.report.outcome = Outcome::Success;
    built.report.seconds.total = began.elapsed().as_secs_f64();
    Ok(Attempt::Done(Box::new(built)))
}

/// Makes visible to other runs what this build saved.
async fn flush(context: &BuildContext<'_>, built: &mut Built) -> Result<()> {
    let at = Instant::now();
    let flushed = context.cache.flush().await;
    built.report.seconds.save += at.elapsed().as_secs_f64();
    if let Some(cache) = &context.cache.opened {
        built.report.cache.warnings = cache.faults.warnings();
    }
    flushed?;
    prune(context).await
}

/// Prunes the cache's directory if it has become larger than the user wants.
async fn prune(context: &BuildContext<'_>) -> Result<()> {
    let usable = context.cache.usable().filter(|(session, _)| session.writes());
    let Some((session, faults, most)) = usable.and_then(|(session, faults)| Some((session, faults, faults.settings.max_size?)))
    else {
        return Ok(());
    };
    match prune_to(session.blobs(), most).await {
        Ok(done) => {
            done.into_iter().for_each(|done| context.events.note(done));
            Ok(())
        }
        // The image is built, and pushed.
        Err(error) => {
            context.events.warning(format!("failed to prune the cache {}: {error}", faults.settings.shown));
            Ok(())
        }
    }
}

/// Reports an image whose tag was already in the registry. There is nothing for `--iidfile`, because that names an image of a
/// daemon, and no daemon has this image.
pub fn report_skipped(build: &BuildSettings, skipped: &[(ImageRef, Descriptor)], events: &Events) -> Result<()> {
    let Some((tag, there)) = skipped.first() else { return Ok(()) };
    // The other tags may point to other images.
    let same = skipped.iter().filter(|(_, other)| other.digest == there.digest);
    let names = same.map(|(tag, _)| tag.clone()).collect();
    let metadata = Metadata { descriptor: Some(there.clone()), names, ..Metadata::default() };
    // hakobi has not looked up the configuration.
    write_metadata(build, &metadata, &there.digest.to_string(), events)?;
    hand_off(&build.hand_off, &Deployable { tag: tag.clone(), digest: there.digest.clone() })
}

pub async fn with_daemon(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    mut input: Input,
    ahead: DaemonlessPlan,
    began: Instant,
) -> Result<()> {
    let build = daemon.context.build;
    let imports = imports::find(daemon).await?;
    let mut options = frontend_options(build, &input, &imports.all_imports());
    daemon.resolve_host_gateway(&mut options).await?;
    let colder = frontend_options(build, &input, &imports.imports);
    let sinks = Outputs::default();
    if build.call != "build" {
        let session = daemon.session(&mut input, &sinks, None).await?;
        let answer = call::call(daemon, &session, options).await?;
        built.text = Some(answer.text);
        built.exit_code = answer.exit_code;
        return Ok(());
    }
    let session = if daemon.context.plans(&input) {
        let start = Start { options: &colder, imports: &imports, sinks: &sinks, began };
        match by_plan::build_by_plan(daemon, built, &mut input, ahead, start).await? {
            Some(session) => session,
            None => return Ok(()),
        }
    } else {
        daemon.session(&mut input, &sinks, None).await?
    };
    if build.mounts.automatic {
        daemon.context.events.warning("--auto-mounts has no effect: BuildKit plans this build");
    }
    if build.max_age.is_some() {
        let why = "--max-age requires hakobi's plan, but BuildKit decides what is cached in this build";
        return Err(Error::usage(why).hint("planning requires a cache, a single platform and a local context"));
    }
    let (solved, compiled, released) = loop {
        let release = buildkit_only::open_release(daemon, &imports).await?;
        let (exports, files) = request::exports(daemon, release.as_ref(), &sinks)?;
        let inline = release.is_some() && buildkit_only::exports_inline(daemon);
        let request = request::request(daemon, exports, request::cache_exports(daemon, inline));
        let at = Instant::now();
        let (solved, compiled, executed) =
            buildkit_only::solve(daemon, &session, &request, &mut options, &colder, release.as_ref()).await?;
        built.report.seconds.build += at.elapsed().as_secs_f64();
        daemon.context.cache.warn_of_unread()?;
        files.finish().await?;
        built.report.bytes.context = session.bytes_sent();
        let graph = Graph::new(compiled.definition.clone()).ok();
        built.places = graph.as_ref().map(Graph::places).unwrap_or_default();
        // For several platforms, this is the graph of only one.
        let ran = |graph: &Graph| {
            let all = explained(graph);
            !all.is_empty() && all.into_iter().all(|op| executed.ended(&op.digest))
        };
        built.ran_all = build.platforms.len() < 2 && graph.as_ref().is_some_and(ran);
        let Some(release) = release else { break (solved, compiled, None) };
        let at = Instant::now();
        // The daemon has the image under a name of hakobi's, which hakobi removes even if the push fails.
        let steps = graph.as_ref().map(|graph| graph.chain(graph.result())).unwrap_or_default();
        let before = if daemon.context.cache.gave_cache_up() { imports.latest().to_vec() } else { imports.before() };
        let annotations = daemon.context.annotations();
        let pushed = release.push(&daemon.docker, daemon.exit(), solved.made(), annotations, &before, inline, &steps);
        let done = Box::pin(pushed).await;
        built.report.seconds.push += at.elapsed().as_secs_f64();
        let released = match done {
            // The daemon does not hand over layers that the store has, and the store cannot supply them.
            Err(failure) if daemon.context.cache.failed_by_cache(&failure)? => {
                without_store(&mut options, &colder);
                continue;
            }
            done => request::released(&daemon.context, done.map_err(Error::from))?,
        };
        if let (Some(graph), Some(done)) = (graph.as_ref().filter(|_| inline), &released) {
            let at = Instant::now();
            stage_index::save(daemon, built, &session, graph, &executed, &imports, done).await?;
            built.report.seconds.save = at.elapsed().as_secs_f64();
        }
        break (solved, compiled, released);
    };
    let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
    drop(input);
    daemon.context.cache.warn_of_damage()?;
    if let Some(store) = &daemon.context.cache.opened {
        built.report.cache.warnings = store.faults.warnings();
    }
    if let Some((session, _)) = daemon.context.cache.usable() {
        session.restored(&imports.cached_layers()).add_to(&mut built.report);
    }
    outcome::report(&daemon.context, built, &id, &solved, released.as_ref(), &compiled, Some(&daemon.info))?;
    match released {
        Some(released) => released.failure(),
        None => Ok(()),
    }
}
