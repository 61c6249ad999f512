//! Solves of a planned build: what is kept stands in for what led to it, and it is noted what ran.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tokio_util::io::SyncIoBridge;

use super::build::{Run, lacks_room};
use super::kept::Kept;
use super::planned::Work;
use super::planning::Planned;
use super::release::Release;
use super::transport::Way;
use crate::build::{Failed, Refusal, is_cut_off};
use crate::context::Tree;
use crate::domain::{Digest, Platform, Selector};
use crate::endpoint::Shelf;
use crate::engine::buildkit::{Export, Gateway, SolveOutcome, SolveRequest, Solved, pb};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::graph::{Graft, Grafted, Graph, Input, Op, Taken};
use crate::handover::KnownImage;
use crate::plan::{Layer, bare_image, explained};
use crate::registry::Source as _;
use crate::save::Executed;

/// Bytes between the daemon's stream and who reads it.
const PIPE: usize = 1 << 20;

/// What a run has had solved so far, in terms of the whole graph.
#[derive(Default)]
pub(super) struct Course {
    /// What stood in for states.
    pub(super) grafts: HashMap<Input, Graft>,
    /// Steps of the solves that came to their end.
    pub(super) given: HashSet<Digest>,
    /// Those that ran.
    pub(super) ran: HashSet<Digest>,
    /// How long these took, in seconds.
    pub(super) seconds: HashMap<Digest, f64>,
    /// The files of what was looked at.
    pub(super) trees: HashMap<(Input, Vec<Selector>), Tree>,
    /// Whether images stood in for what steps made.
    pub(super) has_states: bool,
    /// Whether the daemon pulls base images itself.
    pub(super) passed_by: bool,
    /// Steps whose results were looked at.
    pub(super) looked_at: HashSet<Digest>,
    /// Whether one of these ran again: what was seen of it is not what the image has then.
    pub(super) ran_again: bool,
    /// What could not be looked at: what is copied from there is not known.
    pub(super) unknown: HashSet<(Input, Vec<Selector>)>,
}

impl Course {
    /// Whether anything was made, other than brought.
    pub(super) fn ran_steps(&self, graph: &Graph) -> bool {
        self.ran.iter().any(|step| graph.op(step).is_some_and(|op| !op.inputs.is_empty()))
    }

    /// Whether everything ran that can, and there is such a thing.
    pub(super) fn ran_all(&self, graph: &Graph) -> bool {
        let all = explained(graph);
        !all.is_empty() && all.into_iter().all(|op| self.ran.contains(&op.digest))
    }

    /// Whether a command ran.
    pub(super) fn ran_commands(&self, graph: &Graph) -> bool {
        let is_command = |step| graph.op(step).is_some_and(Op::is_command);
        self.ran.iter().any(is_command)
    }

    /// Whether anything stands in for a state or a base.
    pub(super) fn has_grafts(&self) -> bool {
        self.grafts.values().any(Graft::is_image)
    }

    /// Has these stand in for states from here on. What a step was given already stays as it is, so that the daemon finds its work again:
    /// another image there, or the steps in its place, would make another step of it. Only what has to run now is not stood in for.
    pub(super) fn take_grafts(&mut self, new: HashMap<Input, Graft>, planned: &Planned) {
        self.grafts.retain(|state, _| !planned.plan.runs(&state.step));
        for (state, graft) in new {
            if !self.given.contains(&state.step) {
                self.grafts.entry(state).or_insert(graft);
            }
        }
    }

    /// From here on the daemon pulls base images itself.
    pub(super) fn pass_by(&mut self, why: &str, events: &Events) {
        events.note(format!("the daemon pulls base images itself, as a layer did not come through hakobi: {why}"));
        self.passed_by = true;
        self.grafts.clear();
    }

    fn note(&mut self, grafted: &Grafted, executed: &Executed) {
        for (step, name) in &grafted.names {
            if executed.ended(name) {
                self.ran.insert(step.clone());
                self.seconds.extend(executed.seconds(name).map(|seconds| (step.clone(), seconds)));
                self.ran_again |= self.looked_at.contains(step);
            }
        }
    }
}

/// What came of a solve.
pub(super) enum Attempted {
    Done(SolveOutcome),
    /// The store could not give what it was asked for. That was told; nothing of it is used from here on.
    WithoutStore,
    /// Something from elsewhere is another thing than was found before.
    Moved,
    /// A base image did not come through the endpoint. That was told; from here on the daemon pulls them itself.
    Otherwise,
}

impl Run<'_> {
    /// Has graphs solved that have grafts in them. Begins again where the network or a registry had a bad moment.
    pub(super) async fn attempt<W, F>(
        &self,
        work: &Work<'_>,
        grafted: &[&Grafted],
        request: SolveRequest,
        course: &mut Course,
        release: Option<&Release>,
        ask: W,
    ) -> Result<Attempted>
    where
        W: Fn(Gateway) -> F,
        F: Future<Output = std::result::Result<Solved, Refusal>>,
    {
        let job = &self.job;
        // What was given up is in no graph any more, and nothing is to be blamed on it.
        let from_store = grafted.iter().any(|grafted| grafted.has_images()) && job.is_repeatable() && !job.gave_store_up();
        course.has_states |= grafted.iter().any(|grafted| grafted.has_states());
        if let Err(error) = self.load_sources(grafted).await {
            job.store_failed(&error.to_string(), release)?;
            course.grafts.clear();
            return Ok(Attempted::WithoutStore);
        }
        let mut attempt = 1;
        loop {
            release.into_iter().for_each(Release::begin);
            let (events, listening) = self.listen();
            let mut passing = None;
            let solved = tokio::select! {
                biased;
                why = job.cannot_pass(), if from_store && !course.passed_by => {
                    passing = Some(why);
                    None
                }
                // An overlay2 daemon would ask for a damaged layer again and again, for more than a minute.
                () = job.store_damaged(), if from_store => None,
                error = lacks_room(release) => return Err(error),
                solved = self.buildkit.build(work.session, request.clone(), &events, &ask) => Some(solved),
            };
            drop(events);
            let executed = listening.await.unwrap_or_default();
            grafted.iter().for_each(|grafted| course.note(grafted, &executed));
            if let Some(why) = passing {
                course.pass_by(&why, job.events);
                return Ok(Attempted::Otherwise);
            }
            let why = match solved {
                Some(Ok(solved)) => {
                    job.store_was_read()?;
                    // Only now: of a solve that broke off, nobody knows which steps still have to run (`--no-cache`).
                    course.given.extend(grafted.iter().flat_map(|grafted| grafted.names.keys().cloned()));
                    return Ok(Attempted::Done(solved));
                }
                // Whatever else is said: the files are to be looked at again.
                Some(Err(status)) if work.session.moved().is_some() => {
                    return Err(self.failure(&status, work.session, None).await);
                }
                Some(Err(status)) if from_store && job.blames_store(status.message()) => status.message().to_owned(),
                Some(Err(status)) if course.blames_pins(status.message()) => {
                    job.events
                        .note("the daemon does not get from elsewhere what was there a moment ago: nothing is remembered of it");
                    course.grafts.clear();
                    return Ok(Attempted::Moved);
                }
                Some(Err(status)) => {
                    if job.tries_again(&mut attempt, &status).await {
                        continue;
                    }
                    let failed = executed.failed().and_then(|step| {
                        let of = grafted.iter().find(|grafted| grafted.definition.metadata.contains_key(step))?;
                        Some(Failed { definition: &of.definition, step })
                    });
                    return Err(self.failure(&status, work.session, failed).await);
                }
                None => "a layer is damaged".to_owned(),
            };
            job.store_failed(&why, release)?;
            course.grafts.clear();
            return Ok(Attempted::WithoutStore);
        }
    }

    /// What is kept, as images that the daemon can pull; and local sources under the name of their content: a daemon that has an
    /// older copy of them must not take a file of the same size and time for the same.
    pub(super) fn grafts(&self, planned: &Planned, kept: &Kept, release: Option<&Release>) -> Result<HashMap<Input, Graft>> {
        let own = kept.own().ok_or_else(|| Error::build("the store has no scope"))?;
        let mut grafts = HashMap::new();
        let is_there = planned.is_there();
        for (state, record) in &planned.plan.kept {
            if let Some(release) = release {
                release.learn(&record.blobs(), &record.diff_ids(), own.repository());
            }
            if is_there {
                continue;
            }
            let name = planned.graph.op(&state.step).map(|op| &*op.name).unwrap_or_default();
            let name = format!("[hakobi] from the cache: {name}");
            grafts.insert(state.clone(), self.offered(own, &planned.platform()?, &record.layers, name)?);
        }
        let passes = self.way == Way::Registry && kept.has_begun() && own.passes();
        if passes && !is_there && self.job.is_repeatable() && self.job.trusts_store() {
            // Of those alone that something open is built on: others need not come at all.
            let open = planned.graph.grafted(planned.graph.result(), &grafts, &HashSet::new()).map_err(|error| broken(&error))?;
            for (source, base) in planned.bases.iter().filter(|(source, _)| open.names.contains_key(&source.step)) {
                match self.through(planned, kept, source, base) {
                    Ok(graft) => grafts.insert(source.clone(), graft),
                    // The daemon can bring it as well.
                    Err(error) => {
                        self.job.events.note(format!("base images do not come through hakobi: {}", error.message()));
                        break;
                    }
                };
            }
        }
        for (source, record) in planned.recorded_bases.iter().flatten() {
            if let Some(release) = release {
                release.learn(&record.blobs(), &record.diff_ids(), own.repository());
            }
            // Also where the daemon made the rest itself: it would ask the registry what the base is.
            if let Entry::Vacant(base) = grafts.entry(source.clone()) {
                let name = planned.graph.op(&source.step).map(|op| op.name.clone()).unwrap_or_default();
                base.insert(self.offered(own, &planned.platform()?, &record.layers, name)?);
            }
        }
        for op in planned.graph.below(planned.graph.result()) {
            let Some(pb::op::Op::Source(source)) = &op.op.op else { continue };
            if !source.identifier.starts_with("local://") {
                continue;
            }
            let tree = planned.facts.locals.get(&op.digest).and_then(|tree| tree.as_ref().ok());
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
            let graft = Graft { identifier: source.identifier.clone(), attributes, name: op.name.clone() };
            grafts.insert(Input { step: op.digest.clone(), output: 0 }, graft);
        }
        grafts.extend(planned.pins());
        Ok(grafts)
    }

    /// A base image as one that the daemon pulls through the endpoint: it is read once, for the daemon and for the store.
    fn through(&self, planned: &Planned, kept: &Kept, source: &Input, base: &KnownImage) -> Result<Graft> {
        kept.pass_through(base, &self.job.registries)?;
        let own = kept.own().ok_or_else(|| Error::build("the store has no scope"))?;
        let layers: Vec<Layer> = base
            .manifest
            .layers
            .iter()
            .zip(&base.diff_ids)
            .map(|(blob, diff_id)| Layer { blob: blob.clone().bare(), diff_id: diff_id.clone(), created: None })
            .collect();
        let name = planned.graph.op(&source.step).map(|op| op.name.clone()).unwrap_or_default();
        let platform = serde_json::from_slice::<Platform>(&base.config).map_err(|error| broken(&error))?;
        self.offered(own, &platform, &layers, name)
    }

    /// Layers as an image that the daemon can take.
    fn offered(&self, own: &Shelf, platform: &Platform, layers: &[Layer], name: String) -> Result<Graft> {
        let image = bare_image(platform, layers).map_err(|error| broken(&error))?;
        Ok(self.source(&own.offer(&image.manifest, image.config), name))
    }

    /// Looks at what is taken out of a state that was solved, by the daemon's own copier.
    pub(super) async fn look_at(&self, planned: &Planned, course: &mut Course, work: &Work<'_>, taken: &Taken) -> Result<Digest> {
        let place = taken.place();
        if !course.trees.contains_key(&place) {
            let grafted = planned.graph.grafted(&taken.state, &course.grafts, &course.given).map_err(|error| broken(&error))?;
            let tree = self.extract(work, grafted.definition, &taken.selectors).await?;
            // A source is brought each time, and is the same each time.
            let is_step = |step: &Digest| planned.graph.op(step).is_some_and(|op| !op.inputs.is_empty());
            course.looked_at.extend(grafted.names.into_keys().filter(is_step));
            course.trees.insert(place.clone(), tree);
        }
        let tree = course.trees.get(&place).ok_or_else(|| Error::build("what is copied out of a stage was not looked at"))?;
        let content = tree.digest(&[Selector::everything()]);
        content.map_err(|error| Error::build("what is copied out of a stage has no digest").because(&error))
    }

    /// Leaves base images to the daemon, where it is for want of one that something could not be looked at: one may come down only then.
    /// Tells whether it is.
    pub(super) async fn passes_by(&self, course: &mut Course) -> bool {
        match self.job.not_passed().await {
            Some(why) if !course.passed_by => {
                course.pass_by(&why, self.job.events);
                true
            }
            _ => false,
        }
    }

    async fn extract(&self, work: &Work<'_>, definition: pb::Definition, selectors: &[Selector]) -> Result<Tree> {
        let graph = Graph::new(definition).map_err(|error| broken(&error))?;
        let definition = graph.extraction(selectors);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        work.sinks.add(0, Box::new(ours));
        let reading = tokio::task::spawn_blocking(move || {
            let mut from = SyncIoBridge::new(theirs);
            let tree = Tree::of_tar(&mut from);
            // Whoever writes is not left alone with what comes behind the archive's end.
            std::io::copy(&mut from, &mut std::io::sink())?;
            tree
        });
        let export = Export { kind: "tar".to_owned(), attributes: [].into() };
        let entitlements = self.job.build.entitlements.clone();
        let request = SolveRequest { exports: vec![export], entitlements, ..SolveRequest::default() };
        let ask = |mut gateway: Gateway| async move { gateway.graph(definition, &[], false).await };
        match self.buildkit.build(work.session, request, &Events::none(), ask).await {
            Ok(_) => {}
            Err(status) if is_cut_off(&status) => return Err(self.docker.went_away(status.message()).await),
            Err(status) => {
                return Err(Error::build(format!("what is copied out of a stage cannot be looked at: {}", status.message())));
            }
        }
        let tree = reading.await.map_err(std::io::Error::other).and_then(|tree| tree);
        tree.map_err(|error| Error::build("what is copied out of a stage cannot be read").because(&error))
    }
}

pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::build("the build graph cannot be put together").because(error)
}

/// When each layer was made, as the image's history has it.
pub(super) fn created(config: &[u8], layers: usize) -> Vec<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        created: Option<String>,
        #[serde(default)]
        empty_layer: bool,
    }
    #[derive(serde::Deserialize)]
    struct History {
        #[serde(default)]
        history: Vec<Entry>,
    }
    let history = serde_json::from_slice::<History>(config).map(|config| config.history).unwrap_or_default();
    let times: Vec<Option<String>> = history.into_iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created).collect();
    if times.len() == layers { times } else { vec![None; layers] }
}
