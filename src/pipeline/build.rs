//! `hakobi build`: look before building, build, hand over, put, save for the next run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncRead;

use super::ahead::Ahead;
use super::cache::{Cache, Store};
use super::cold::LastCold;
use super::hiding::{hide_arguments, hide_declared, hide_found};
use super::job::{Job, write_metadata};
use super::loading::Loaded;
use super::moving::Start;
use super::release::Release;
use super::transport::Way;
use super::{call, outputs};
use crate::build::{Compiled, Failed, Input, Refusal, SessionCredentials, failure, frontend_options, is_cut_off};
use crate::domain::{Descriptor, ImageRef};
use crate::engine::buildkit::{
    BuildKit, CacheOption, Export, Outputs, Session, SessionParts, SolveOutcome, SolveRequest, Solved, SshAgents,
};
use crate::engine::{Dialer, Docker, EngineInfo, StoreKind};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::graph::{Graph, Place};
use crate::plan::explained;
use crate::push::preflight;
use crate::registry::Registries;
use crate::report::{
    CiReport, Deployable, Metadata, Note, Outcome, RunReport, StrategyUsed, Tier, can_hand_off, can_write, hand_off,
    remove_iid_file,
};
use crate::save::{Executed, Exit};
use crate::settings::{BuildSettings, CacheFrom, Settings};

/// The frontend's option that names caches.
const IMPORTS: &str = "cache-imports";

/// From this API version on (Docker 26, BuildKit 0.13), a build may have several outputs.
pub(super) const SEVERAL_EXPORTS_API: (u32, u32) = (1, 45);

/// What a build has to say beside its report.
#[derive(Debug, Default)]
pub struct Built {
    /// Everything but the steps, which the display knows.
    pub report: RunReport,
    /// Where the steps stand in the Dockerfile, by their digests.
    pub places: BTreeMap<String, Place>,
    /// What goes to standard output.
    pub text: Option<String>,
    /// The exit code of a call that found something.
    pub exit_code: u8,
    /// What the plan says of the steps, by their digests.
    pub notes: std::collections::HashMap<String, Note>,
    /// What the plan made of the image; what the steps tell where there was none.
    pub tier: Option<Tier>,
    /// Whether everything ran that can, as far as that was seen.
    pub ran_all: bool,
}

/// Runs a build to its end.
///
/// # Errors
/// If anything fails that was asked for; faults of the cache are warnings.
pub async fn build(
    settings: &Settings,
    build: &BuildSettings,
    events: &Events,
    stdin: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Built> {
    let began = Instant::now();
    hide_arguments(build, events.hidden());
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
        let step = events.step("[hakobi] looking at the registries");
        let looked = preflight(&registries, &tags, &build.push_settings).await;
        match &looked {
            Ok(_) => step.done(),
            Err(error) => step.failed(error),
        }
        let looked = looked?;
        for (tag, there) in &looked.skipped {
            events.note(format!("{tag} is there already ({}) and is left alone", there.digest));
        }
        for repository in &looked.created {
            events.note(format!("made the repository {repository}"));
        }
        tags = looked.push;
        if tags.is_empty() {
            tell_skipped(build, &looked.skipped, events)?;
            built.report.outcome = Outcome::Skipped;
            built.report.seconds.total = began.elapsed().as_secs_f64();
            return Ok(built);
        }
    }
    let store = match &build.store {
        Some(store) if build.call == "build" => {
            built.report.cache = super::cache_report(store);
            Some(Store::open(store, build, &registries, events).await?)
        }
        _ => None,
    };
    let last_cold = LastCold::look(store.as_ref());
    let daemon = Daemon::connect(settings).await;
    if let Ok(daemon) = &daemon {
        super::leftovers::clear(&daemon.docker).await;
    }
    let mut input = Input::open(build, stdin).await?;
    hide_declared(&input, events.hidden());
    let job = Job { settings, build, events, registries, tags, store };
    let at_hand = daemon.as_ref().ok().map(|daemon| (&daemon.docker, &daemon.info));
    job.resolve_contexts(&mut input, at_hand.map(|(docker, _)| docker)).await;
    let ahead = Box::pin(job.ahead(&mut built, &input, at_hand, began)).await?;
    if !matches!(ahead, Ahead::Done) {
        let Daemon { docker, buildkit, info } = match daemon {
            Ok(daemon) => daemon,
            Err(error) => return Err(job.needs_daemon(error, &ahead, &input).await),
        };
        let moves = build.call == "build" && (build.push || job.store.is_some());
        let way = if moves { Some(Way::choose(settings.transport, &docker).await?) } else { None };
        built.report.engine = super::engine_report(&info, way);
        let run = Run { job, docker, buildkit, info, way: way.unwrap_or(Way::Registry), loaded: Loaded::default() };
        run.run(&mut built, input, ahead, began).await?;
        if built.ran_all {
            run.job.remember_cold(began.elapsed().as_secs_f64()).await;
        }
    }
    built.report.last_cold = last_cold.found().await;
    built.report.outcome = Outcome::Success;
    built.report.seconds.total = began.elapsed().as_secs_f64();
    Ok(built)
}

/// Says of an image that was there already what its registry does. There is nothing for `--iidfile`: it names an image of a daemon,
/// and none has this one.
fn tell_skipped(build: &BuildSettings, skipped: &[(ImageRef, Descriptor)], events: &Events) -> Result<()> {
    let Some((tag, there)) = skipped.first() else { return Ok(()) };
    // The other tags may stand for other images.
    let same = skipped.iter().filter(|(_, other)| other.digest == there.digest);
    let names = same.map(|(tag, _)| tag.clone()).collect();
    let metadata = Metadata { descriptor: Some(there.clone()), names, ..Metadata::default() };
    // What its configuration is was not asked.
    write_metadata(build, &metadata, &there.digest.to_string(), events)?;
    hand_off(&build.hand_off, &Deployable { tag: tag.clone(), digest: there.digest.clone() })
}

/// A daemon that answers.
pub(super) struct Daemon {
    pub(super) docker: Docker,
    pub(super) buildkit: BuildKit,
    pub(super) info: EngineInfo,
}

impl Daemon {
    pub(super) async fn connect(settings: &Settings) -> Result<Self> {
        let docker = Docker::connect(Dialer::new(&settings.daemon)?).await?;
        let info = docker.info().await?;
        let buildkit = BuildKit::connect(docker.dialer(), info.api).await?;
        Ok(Self { docker, buildkit, info })
    }
}

pub(super) struct Run<'a> {
    pub(super) job: Job<'a>,
    pub(super) docker: Docker,
    pub(super) buildkit: BuildKit,
    pub(super) info: EngineInfo,
    /// How layers go to the daemon and come from it.
    pub(super) way: Way,
    /// What it was given as archives.
    pub(super) loaded: Loaded,
}

impl Run<'_> {
    async fn run(&self, built: &mut Built, mut input: Input, ahead: Ahead, began: Instant) -> Result<()> {
        let build = self.job.build;
        let cache = self.cache().await?;
        let mut options = frontend_options(build, &input, &cache.all_imports());
        self.resolve_host_gateway(&mut options).await?;
        let colder = frontend_options(build, &input, &cache.imports);
        let sinks = Outputs::default();
        if build.call != "build" {
            let session = self.session(&mut input, &sinks, None).await?;
            let answer = call::call(self, &session, options).await?;
            built.text = Some(answer.text);
            built.exit_code = answer.exit_code;
            return Ok(());
        }
        let session = if self.job.plans(&input) {
            let start = Start { options: &colder, cache: &cache, sinks: &sinks, began };
            match self.build_by_plan(built, &mut input, ahead, start).await? {
                Some(session) => session,
                None => return Ok(()),
            }
        } else {
            self.session(&mut input, &sinks, None).await?
        };
        if build.max_age.is_some() {
            let why = "--max-age takes hakobi's plan, and BuildKit decides what is cached here";
            return Err(Error::usage(why).hint("a cache, one platform and a context in a directory are what a plan takes"));
        }
        let (solved, compiled, released) = loop {
            let release = self.release(&cache).await?;
            let (exports, files) = self.exports(release.as_ref(), &sinks)?;
            let inline = release.is_some() && self.exports_inline();
            let request = self.request(exports, self.cache_exports(inline));
            let at = Instant::now();
            let (solved, compiled, executed) = self.solve(&session, &request, &mut options, &colder, release.as_ref()).await?;
            built.report.seconds.build += at.elapsed().as_secs_f64();
            self.job.store_was_read()?;
            files.finish().await?;
            built.report.bytes.context = session.bytes_sent();
            let graph = Graph::new(compiled.definition.clone()).ok();
            built.places = graph.as_ref().map(Graph::places).unwrap_or_default();
            // Of several platforms this is the graph of one.
            let ran = |graph: &Graph| {
                let all = explained(graph);
                !all.is_empty() && all.into_iter().all(|op| executed.ended(&op.digest))
            };
            built.ran_all = build.platforms.len() < 2 && graph.as_ref().is_some_and(ran);
            let Some(release) = release else { break (solved, compiled, None) };
            let at = Instant::now();
            // The image came out of the daemon under a name of our own, which goes whatever comes of the push.
            let steps = graph.as_ref().map(|graph| graph.chain(graph.result())).unwrap_or_default();
            let before = if self.job.gave_store_up() { cache.latest().to_vec() } else { cache.before() };
            let annotations = self.job.annotations();
            let pushed = release.push(&self.docker, self.exit(), solved.made(), annotations, &before, inline, &steps);
            let done = Box::pin(pushed).await;
            built.report.seconds.push += at.elapsed().as_secs_f64();
            let released = match done {
                // The daemon does not hand over what the store has already, and that does not give it.
                Err(failure) if self.job.failed_by_store(&failure)? => {
                    without_store(&mut options, &colder);
                    continue;
                }
                done => self.job.released(done.map_err(Error::from))?,
            };
            if let (Some(graph), Some(done)) = (graph.as_ref().filter(|_| inline), &released) {
                let at = Instant::now();
                self.save(built, &session, graph, &executed, &cache, done).await?;
                built.report.seconds.save = at.elapsed().as_secs_f64();
            }
            break (solved, compiled, released);
        };
        let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
        drop(input);
        self.job.tell_damage()?;
        if let Some(store) = &self.job.store {
            built.report.cache.warnings = store.faults.told();
        }
        if let Some((kept, _)) = self.job.kept() {
            kept.restored(&cache.kept_layers()).tell(&mut built.report);
        }
        self.job.tell(built, &id, &solved, released.as_ref(), &compiled, Some(&self.info))?;
        match released {
            Some(released) => released.failure(),
            None => Ok(()),
        }
    }

    /// Opens the way out of the daemon, if anything is to come out.
    async fn release(&self, cache: &Cache) -> Result<Option<Release>> {
        let build = self.job.build;
        let keep = self.keeps().map(|target| target.repository);
        if !build.push && keep.is_none() {
            return Ok(None);
        }
        let tags = if build.push { &*self.job.tags } else { &[] };
        let known = if self.job.gave_store_up() { cache.latest().to_vec() } else { cache.known() };
        let open = Release::open(&self.job.registries, tags, keep.as_ref(), &build.push_settings, &known, self.job.events);
        Ok(Some(open.await?))
    }

    /// A session that serves what the build is made of; the daemon keeps its copies of local directories under the shared key.
    pub(super) async fn session(&self, input: &mut Input, sinks: &Outputs, shared_key: Option<String>) -> Result<Session> {
        let parts = SessionParts {
            shared_key: shared_key.unwrap_or_else(|| input.shared_key.clone()),
            directories: input.directories.clone(),
            credentials: Some(Arc::new(SessionCredentials(self.job.registries.clone()))),
            secrets: self.job.build.secrets.clone(),
            ssh: SshAgents::open(&self.job.build.ssh).await?,
            uploads: std::mem::take(&mut input.uploads),
            outputs: sinks.clone(),
            contents: self.contents(),
        };
        Session::start(&self.buildkit, parts, self.job.events).await
    }

    /// Whether the image carries its cache with it: the pulled-latest way.
    fn exports_inline(&self) -> bool {
        let asked = self.job.build.cache_to.iter().any(|to| to.kind == "inline");
        let latest = self.job.build.cache_from.iter().any(|from| matches!(from, CacheFrom::Latest(_)));
        asked || latest || self.keeps().is_some()
    }

    pub(super) fn cache_exports(&self, inline: bool) -> Vec<CacheOption> {
        let mut exports: Vec<CacheOption> = self
            .job
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

    /// A solve whose result goes somewhere.
    pub(super) fn request(&self, exports: Vec<Export>, cache_exports: Vec<CacheOption>) -> SolveRequest {
        let entitlements = self.job.build.entitlements.clone();
        let platforms: Vec<String> = self.job.build.platforms.iter().map(ToString::to_string).collect();
        let platform = (!platforms.is_empty()).then(|| platforms.join(","));
        SolveRequest { exports, cache_exports, entitlements, platform }
    }

    pub(super) fn exports(&self, release: Option<&Release>, sinks: &Outputs) -> Result<(Vec<Export>, outputs::Files)> {
        let mut exports = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let into_daemon = release.is_some() || self.job.build.load;
        if into_daemon && self.job.build.platforms.len() > 1 && self.info.store == StoreKind::GraphDriver {
            let why = "an image for several platforms cannot be built: this Docker daemon's image store (overlay2) takes one platform for each image";
            return Err(Error::build(why).hint(
                "turn on the containerd image store (https://docs.docker.com/go/build-multi-platform/), name a daemon that has it in DOCKER_HOST, \
                 or build one platform at a time",
            ));
        }
        if self.job.build.load {
            names.extend(self.job.tags.iter().map(ToString::to_string));
        }
        match release.map(Release::reference) {
            Some(reference) if self.exit() == Exit::Straight => exports.push(Export::to_registry(&reference)),
            Some(reference) => {
                names.push(reference.to_string());
                exports.push(Export::into_daemon(&names));
                if let Some(release) = release {
                    release.lend(self.docker.borrow(reference));
                }
            }
            None if self.job.build.load => exports.push(Export::into_daemon(&names)),
            None => {}
        }
        let mut files = outputs::Files::default();
        for output in &self.job.build.outputs {
            let (kind, sink) = files.open(output)?;
            sinks.add(exports.len(), sink);
            let mut attributes = output.attributes.clone();
            if matches!(&*kind, "docker" | "oci") && !attributes.contains_key("name") && !self.job.tags.is_empty() {
                attributes.insert("name".to_owned(), self.job.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            }
            exports.push(Export { kind, attributes });
        }
        if exports.len() > 1 && self.info.api < SEVERAL_EXPORTS_API {
            return Err(Error::usage(format!("Docker {} takes one output at a time", self.info.version))
                .hint("run hakobi once for each, the second finds everything built"));
        }
        Ok((exports, files))
    }

    /// How the image comes out of the daemon.
    pub(super) fn exit(&self) -> Exit {
        self.way.exit(&self.info, self.job.build.load)
    }

    async fn solve(
        &self,
        session: &Session,
        request: &SolveRequest,
        options: &mut std::collections::HashMap<String, String>,
        colder: &std::collections::HashMap<String, String>,
        release: Option<&Release>,
    ) -> Result<(SolveOutcome, Compiled, Executed)> {
        let mut attempt = 1;
        loop {
            release.into_iter().for_each(Release::begin);
            let (events, listening) = self.listen();
            let mut compiled = None;
            let given = options.clone();
            let slot = &mut compiled;
            let building = self.buildkit.build(session, request.clone(), &events, |mut gateway| async move {
                let solved: Solved = gateway.dockerfile(given).await?;
                let compiled = slot.insert(Compiled::of(&solved));
                hide_found(compiled, self.job.events.hidden());
                if let Some(release) = release
                    && let Ok(graph) = Graph::new(compiled.definition.clone())
                {
                    release.learn_bases(&graph, &self.info.platform);
                }
                Ok(solved)
            });
            let from_store = options.get(IMPORTS) != colder.get(IMPORTS) && self.job.is_repeatable();
            let solved = tokio::select! {
                solved = building => Some(solved),
                // An overlay2 daemon would ask for a damaged layer again and again, for more than a minute.
                () = self.job.store_damaged(), if from_store => None,
                error = lacks_room(release) => return Err(error),
            };
            drop(events);
            let executed = listening.await.unwrap_or_default();
            let solved = match solved {
                Some(Err(status)) if from_store && self.job.blames_store(status.message()) => Err(status.message().to_owned()),
                Some(solved) => Ok(solved),
                None => Err("a layer is damaged".to_owned()),
            };
            let solved = match solved {
                Ok(solved) => solved,
                // What was to come from the store did not come: the build begins again without it.
                Err(why) => {
                    without_store(options, colder);
                    self.job.store_failed(&why, release)?;
                    continue;
                }
            };
            match solved {
                Ok(solved) => {
                    let compiled = compiled.ok_or_else(|| Error::build("the frontend gave no graph"))?;
                    return Ok((solved, compiled, executed));
                }
                Err(status) if self.job.tries_again(&mut attempt, &status).await => {}
                Err(status) => {
                    let failed = compiled
                        .as_ref()
                        .and_then(|compiled| Some(Failed { definition: &compiled.definition, step: executed.failed()? }));
                    return Err(self.failure(&status, session, failed).await);
                }
            }
        }
    }

    /// A solve's failure in the user's terms; of a connection that broke off, what became of the daemon.
    pub(super) async fn failure(&self, status: &Refusal, session: &Session, failed: Option<Failed<'_>>) -> Error {
        match is_cut_off(status) {
            true => self.docker.went_away(status.message()).await,
            false => failure(status, session.local_failure(status.message()), failed),
        }
    }

    /// Events that go on to the display while it is noted which steps ran.
    pub(super) fn listen(&self) -> (Events, tokio::task::JoinHandle<Executed>) {
        noted(self.job.events.clone())
    }

    /// `host-gateway` stands for an address that only the daemon knows (buildx `toBuildkitExtraHosts`).
    pub(super) async fn resolve_host_gateway(&self, options: &mut std::collections::HashMap<String, String>) -> Result<()> {
        const WORD: &str = "host-gateway";
        let Some(hosts) = options.get_mut("add-hosts").filter(|hosts| hosts.contains(WORD)) else { return Ok(()) };
        let labels = self.buildkit.worker_labels().await?;
        let address = labels
            .get("org.mobyproject.buildkit.worker.moby.host-gateway-ip")
            .ok_or_else(|| Error::usage(format!("--add-host …={WORD}: this Docker daemon does not say what its address is")))?;
        *hosts = hosts.replace(WORD, address);
        Ok(())
    }
}

/// Leaves out what is to come from the store. BuildKit has taken over what it found there as its own cache, so that all of that has
/// to be left out too.
fn without_store(options: &mut std::collections::HashMap<String, String>, colder: &std::collections::HashMap<String, String>) {
    match colder.get(IMPORTS) {
        Some(imports) => options.insert(IMPORTS.to_owned(), imports.clone()),
        None => options.remove(IMPORTS),
    };
    options.insert("no-cache".to_owned(), String::new());
}

/// Waits until what the daemon hands over does not fit into TMPDIR; for ever if it does.
pub(super) async fn lacks_room(release: Option<&Release>) -> Error {
    match release {
        Some(release) => release.lacks_room().await,
        None => std::future::pending().await,
    }
}

/// Events that it is noted of which steps ran, and that go on from there.
pub(super) fn noted(all: Events) -> (Events, tokio::task::JoinHandle<Executed>) {
    let (events, mut receiver) = Events::channel();
    let listening = tokio::spawn(async move {
        let mut executed = Executed::default();
        while let Some(event) = receiver.recv().await {
            executed.listen(&event);
            all.emit(event);
        }
        executed
    });
    (events, listening)
}
