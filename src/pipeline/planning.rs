//! The plan of a build: compiled by the daemon's frontend, keyed by what is at hand, held against what the store remembers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;

use super::CacheFaults;
use super::compiling::CompiledKey;
use super::hiding::hide_found;
use super::job::Job;
use super::kept::Kept;
use super::moving::PLANS;
use crate::build::Compiled;
use crate::context::{self, Selection, WalkError};
use crate::domain::{DiffId, Digest, ImageRef, Platform, StepKey};
use crate::endpoint::Shelf;
use crate::engine::Docker;
use crate::engine::buildkit::LocalDirs;
use crate::error::{Error, Result};
use crate::event::{Event, Status, Time, Vertex};
use crate::graph::{Graph, Input, Key, Keys, Op};
use crate::handover::{KnownImage, load};
use crate::plan::{
    DaemonRecord, KnownFacts, LayerRecord, Plan, Record, Records, StepRecord, TakenRecord, Verdict, aligned, fits, layer_key,
    layer_name, misfits, selection,
};
use crate::registry::Home as _;

/// What a store remembers. A fault is told once, and is a miss from then on.
pub(super) struct Remembered<'a> {
    records: Records,
    faults: &'a CacheFaults<'a>,
}

impl<'a> Remembered<'a> {
    pub(super) fn of(kept: &Kept, faults: &'a CacheFaults<'a>) -> Self {
        Self { records: kept.records(), faults }
    }

    /// The record of one key.
    pub(super) async fn one<T: Record>(&self, key: &StepKey) -> Result<Option<T>> {
        Ok(self.read(std::slice::from_ref(key)).await?.remove(key))
    }

    /// Notes that the record of a key is not used, as it does not fit what is known.
    pub(super) fn refuse(&self, key: &StepKey) {
        self.records.refuse(key);
    }

    pub(super) async fn read<T: Record>(&self, keys: &[StepKey]) -> Result<HashMap<StepKey, T>> {
        if keys.is_empty() || self.faults.gave_up() {
            return Ok(HashMap::new());
        }
        match self.records.read(keys).await {
            Ok(found) => Ok(found),
            Err(error) => {
                self.faults.give_up();
                self.faults.tell("is not used", &error)?;
                Ok(HashMap::new())
            }
        }
    }
}

/// A build that was planned.
pub(super) struct Planned {
    pub(super) compiled: Compiled,
    pub(super) graph: Graph,
    pub(super) facts: KnownFacts,
    pub(super) keys: Keys,
    pub(super) plan: Plan,
    /// What was taken out of stages, as it was remembered.
    pub(super) taken: HashMap<StepKey, TakenRecord>,
    /// The base images, by where they stand in the graph, where a registry has them.
    pub(super) bases: HashMap<Input, KnownImage>,
    /// Why its new files were not laid down here, where that takes more than was known.
    pub(super) not_assembled: Option<String>,
    /// The directories of its local sources.
    pub(super) directories: LocalDirs,
    /// What its compiled form is remembered by, where it may be.
    pub(super) compiled_by: Option<CompiledKey>,
    /// Whether its compiled form is to be remembered, and is not yet.
    pub(super) is_new_form: bool,
    /// The base images as they are kept, where a registry does not say what they are now.
    pub(super) recorded_bases: Option<HashMap<Input, StepRecord>>,
    /// States that the daemon made itself, and the mark by which it is known again.
    pub(super) made_there: Option<DaemonRecord>,
    /// Commands that ran earlier run again; in seconds of the Unix epoch.
    since: Option<u64>,
    /// What the store has, by all keys that it was asked for.
    found: HashMap<StepKey, Option<StepRecord>>,
}

impl Planned {
    /// The key of the result, where it has one.
    pub(super) fn result_key(&self) -> Option<StepKey> {
        match self.keys.state(self.graph.result()) {
            Key::Known(key) => Some(key),
            _ => None,
        }
    }

    /// Brings the history in the frontend's configuration into line with the layers, as BuildKit's exporter would: images that are put
    /// together here then have the history of those that the daemon makes. A daemon that has images in place of steps would
    /// name those.
    fn align_history(&mut self) {
        let chain = self.graph.chain_of(self.graph.result());
        let (base, from) = match &chain.base {
            None => (0, String::new()),
            Some(base) => match (self.facts.images.get(&base.step), self.graph.op(&base.step).and_then(Op::image)) {
                (Some(Ok(layers)), Some(image)) => (layers.len(), format!("pulled from {image}")),
                _ => return,
            },
        };
        let mut names = vec![from; base];
        for link in &chain.links {
            let name = self.graph.op(&link.made_by).map(|op| layer_name(op, &self.compiled.engine)).unwrap_or_default();
            names.resize(base + link.layers, name);
        }
        if let Some(config) = aligned(&self.compiled.config, &names) {
            self.compiled.config = config;
        }
    }

    /// The platform that the image is for.
    pub(super) fn platform(&self) -> Result<Platform> {
        self.compiled.platform().ok_or_else(|| Error::build("the frontend did not say which platform the image is for"))
    }

    /// Whether the daemon has all that is kept from its own work, so that it needs nothing of the store.
    pub(super) fn is_there(&self) -> bool {
        let Some(there) = &self.made_there else { return false };
        let made = |state| matches!(self.keys.state(state), Key::Known(key) if there.states.contains(&key));
        self.plan.kept.keys().all(made)
    }

    /// Whether all base images are known. A daemon elsewhere may reach registries that this host does not, and what is built on them
    /// has no key then: BuildKit decides better.
    pub(super) fn knows_bases(&self) -> bool {
        self.facts.images.values().all(std::result::Result::is_ok)
    }

    /// Plans with all that is known by now.
    pub(super) async fn decide(&mut self, records: &Remembered<'_>) -> Result<()> {
        let mut asked: HashSet<StepKey> = self.facts.taken.keys().cloned().collect();
        self.keys = loop {
            let keys = Keys::of(&self.graph, &self.facts);
            let open: Vec<StepKey> = keys.taken().iter().filter_map(|taken| taken.key.clone()).collect();
            let open: Vec<StepKey> = open.into_iter().filter(|key| asked.insert(key.clone())).collect();
            if open.is_empty() {
                break keys;
            }
            let found: HashMap<StepKey, TakenRecord> = records.read(&open).await?;
            self.facts.taken.extend(found.iter().map(|(key, record)| (key.clone(), record.content.clone())));
            self.taken.extend(found);
        };
        // The result's own record first: where that is kept, nothing else is asked for.
        let wanted = Plan::wanted(&self.graph, &self.keys);
        // When everything ran is in the records of each.
        let first = if self.since.is_some() { wanted.len() } else { usize::from(self.result_key().is_some()).min(wanted.len()) };
        let (first, rest) = wanted.split_at(first);
        self.ask(first, records).await?;
        self.plan = self.of_found();
        // What is kept may not be usable, and then what lies below it is asked for too.
        if !self.plan.unchanged {
            self.ask(rest, records).await?;
            self.plan = self.of_found();
        }
        self.graph.run_anyway(self.plan.old.keys());
        Ok(())
    }

    async fn ask(&mut self, keys: &[StepKey], records: &Remembered<'_>) -> Result<()> {
        let new: Vec<StepKey> = keys.iter().filter(|key| !self.found.contains_key(key)).cloned().collect();
        let mut found: HashMap<StepKey, StepRecord> = records.read(&new).await?;
        let mut wrong = misfits(&self.graph, &self.keys, &self.facts, &found);
        wrong.extend(found.iter().filter(|(_, record)| !self.agrees(record)).map(|(key, _)| key.clone()));
        wrong.extend(unseen(&found, records).await?);
        for key in wrong {
            records.refuse(&key);
            found.remove(&key);
        }
        self.found.extend(new.into_iter().map(|key| {
            let record = found.remove(&key);
            (key, record)
        }));
        Ok(())
    }

    /// Whether a record says of the layers of base images what their registries say.
    fn agrees(&self, record: &StepRecord) -> bool {
        let told = self.bases.values().flat_map(|base| base.manifest.layers.iter().zip(&base.diff_ids));
        let told: HashMap<&Digest, (u64, &DiffId)> = told.map(|(blob, diff_id)| (&blob.digest, (blob.size, diff_id))).collect();
        record.layers.iter().all(|layer| {
            told.get(&layer.blob.digest).is_none_or(|(size, diff_id)| *size == layer.blob.size && **diff_id == layer.diff_id)
        })
    }

    /// The record of a state, if it fits what is known of the graph.
    pub(super) async fn record_of(&self, state: &Input, records: &Remembered<'_>) -> Result<Option<StepRecord>> {
        let Key::Known(key) = self.keys.state(state) else { return Ok(None) };
        let Some(record) = records.one::<StepRecord>(&key).await? else { return Ok(None) };
        if fits(&self.graph, &self.facts, state, &record) && self.agrees(&record) {
            let found = HashMap::from([(key.clone(), record)]);
            if unseen(&found, records).await?.is_empty() {
                return Ok(found.into_values().next());
            }
        }
        records.refuse(&key);
        Ok(None)
    }

    fn of_found(&self) -> Plan {
        let records = self.found.iter().filter_map(|(key, record)| Some((key.clone(), record.clone()?))).collect();
        Plan::of(&self.graph, &self.keys, &records, &self.facts.seen, self.since)
    }

    /// Plans anew without what the store has lost layers of; tells whether that was anything.
    pub(super) async fn forget_lost(&mut self, kept: &Kept, records: &Remembered<'_>) -> Result<bool> {
        let Some(own) = kept.own() else { return Ok(false) };
        let mut lost = self.forget_lost_bases(own).await?;
        loop {
            let there = layers_there(own, self.plan.kept.values()).await?;
            for (state, record) in &self.plan.kept {
                // One of the two is not right. Whichever it is, neither is used.
                if let (true, Key::Known(key)) = (is_of_other_sizes(record, &there), self.keys.state(state)) {
                    records.refuse(&key);
                }
            }
            let gone: Vec<StepKey> = self
                .plan
                .kept
                .iter()
                .filter(|(_, record)| !is_whole(record, &there))
                .filter_map(|(state, _)| match self.keys.state(state) {
                    Key::Known(key) => Some(key),
                    _ => None,
                })
                .collect();
            if gone.is_empty() {
                return Ok(lost);
            }
            lost = true;
            for key in gone {
                self.found.insert(key, None);
            }
            self.plan = self.of_found();
        }
    }

    /// Takes the base images to be what they were when they were kept.
    pub(super) async fn take_recorded_bases(&mut self, records: &Remembered<'_>) -> Result<()> {
        let sources = self.graph.below(self.graph.result()).into_iter().filter(|op| op.image().is_some());
        let states = sources.map(|op| Input { step: op.digest.clone(), output: 0 });
        let states: Vec<Input> = states.collect();
        let mut bases = HashMap::new();
        for state in states {
            if let Some(record) = self.record_of(&state, records).await? {
                bases.insert(state, record);
            }
        }
        self.recorded_bases = Some(bases);
        Ok(())
    }

    /// Leaves recorded bases to their registries of which the store has lost layers.
    async fn forget_lost_bases(&mut self, own: &Shelf) -> Result<bool> {
        let Some(bases) = &mut self.recorded_bases else { return Ok(false) };
        let there = layers_there(own, bases.values()).await?;
        let before = bases.len();
        bases.retain(|_, record| is_whole(record, &there));
        Ok(bases.len() < before)
    }

    /// Plans anew with nothing from the store.
    pub(super) fn without_records(&mut self) {
        self.found.clear();
        self.recorded_bases = self.recorded_bases.take().map(|_| HashMap::new());
        self.plan = self.of_found();
    }

    /// Plans anew by other keys, with what was asked for already.
    pub(super) fn decide_again(&mut self) {
        self.plan = self.of_found();
    }
}

impl Job<'_> {
    /// Plans a compiled build. What is known already is not looked at again; without a daemon, an image that only a daemon has is
    /// not known.
    pub(super) async fn plan(
        &self,
        compiled: Compiled,
        directories: &LocalDirs,
        records: &Remembered<'_>,
        known: KnownFacts,
        docker: Option<&Docker>,
    ) -> Result<Planned> {
        hide_found(&compiled, self.events.hidden());
        let graph = Graph::new(compiled.definition.clone())
            .map_err(|error| Error::build("the frontend's graph cannot be used").because(&error))?;
        let mut facts = known;
        let sources: Vec<&Op> = graph.below(graph.result()).into_iter().filter(|op| op.inputs.is_empty()).collect();
        let new = |op: &&&Op| !facts.images.contains_key(&op.digest) && !facts.locals.contains_key(&op.digest);
        let (images, remotes, locals) = tokio::join!(
            join_all(sources.iter().filter(new).map(|op| self.base(op, docker))),
            self.ask(&sources, records, &facts),
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
        let (keys, plan) = (Keys::default(), Plan::default());
        let mut planned = Planned {
            compiled,
            graph,
            facts,
            keys,
            plan,
            taken: HashMap::new(),
            bases,
            not_assembled: None,
            directories: directories.clone(),
            compiled_by: None,
            is_new_form: false,
            recorded_bases: None,
            made_there: None,
            since: self.build.max_age.map(|age| seconds_now().saturating_sub(age.as_secs())),
            found: HashMap::new(),
        };
        planned.align_history();
        planned.decide(records).await?;
        Ok(planned)
    }

    /// The layers of a base image, as it would be built on: what the daemon has of that name, or what its registry has.
    #[allow(clippy::type_complexity, reason = "read once")]
    async fn base(
        &self,
        op: &Op,
        docker: Option<&Docker>,
    ) -> Option<(Digest, std::result::Result<(Vec<DiffId>, Option<KnownImage>), String>)> {
        let name = op.image()?;
        let found = async {
            let reference: ImageRef = name.parse().map_err(|_| format!("{name} is no image's name"))?;
            if reference.digest.is_none() {
                // The frontend names a digest wherever it asked a registry.
                let Some(docker) = docker else { return Err(format!("{name} is an image of the daemon's")) };
                let layers = docker.image_layers(name).await.map_err(|error| error.to_string())?;
                return layers.map(|layers| (layers, None)).ok_or_else(|| format!("the daemon has no image {name}"));
            }
            let platform = op.op.platform.as_ref().map(|platform| Platform {
                os: platform.os.clone(),
                architecture: platform.architecture.clone(),
                variant: platform.variant.clone(),
            });
            let mut images = load(&self.registries, &reference, platform.as_ref()).await.map_err(|error| error.to_string())?;
            if images.len() > 1 {
                let variant = platform.map(|platform| platform.variant).unwrap_or_default();
                images.retain(|image| serde_json::from_slice::<Platform>(&image.config).is_ok_and(|own| own.variant == variant));
            }
            match (images.pop(), images.is_empty()) {
                (Some(image), true) => Ok((image.diff_ids.clone(), Some(image))),
                (Some(_), false) => Err(format!("{name} has several images for this platform")),
                (None, _) => Err(format!("{name} has no image for this platform")),
            }
        };
        Some((op.digest.clone(), found.await))
    }

    /// The base images that their registries have; one that cannot be had is pushed like anything else.
    pub(super) async fn bases(&self, graph: &Graph) -> Vec<KnownImage> {
        let sources = graph.below(graph.result()).into_iter().filter(|op| op.inputs.is_empty());
        let found = join_all(sources.map(|op| self.base(op, None))).await;
        found.into_iter().flatten().filter_map(|(_, image)| image.ok()?.1).collect()
    }

    /// Shows what is kept, as BuildKit shows what it finds cached.
    pub(super) fn show_hits(&self, planned: &Planned) {
        self.show(planned, |verdict| match verdict {
            Verdict::Hit => Some((true, true)),
            Verdict::Skipped => Some((false, false)),
            _ => None,
        });
    }

    /// Shows what was made here, as BuildKit shows what it made.
    pub(super) fn show_assembled(&self, planned: &Planned) {
        self.show(planned, |verdict| verdict.runs().then_some((true, false)));
    }

    /// Shows steps: whether they came to their end, and whether they were kept.
    fn show(&self, planned: &Planned, of: impl Fn(&Verdict) -> Option<(bool, bool)>) {
        let now = Time::now();
        let vertex = |op: &Op| {
            let (ended, cached) = of(planned.plan.verdicts.get(&op.digest)?)?;
            Some(Vertex {
                digest: op.digest.to_string(),
                inputs: Vec::new(),
                name: op.name.clone(),
                started: ended.then_some(now),
                completed: ended.then_some(now),
                cached,
                error: String::new(),
            })
        };
        let vertexes = planned.graph.below(planned.graph.result()).into_iter().filter_map(vertex).collect();
        self.events.emit(Event::Status(Status { vertexes, ..Status::default() }));
    }
}

/// The keys of records with a layer that nobody saw to be what it is said to be.
async fn unseen(found: &HashMap<StepKey, StepRecord>, records: &Remembered<'_>) -> Result<Vec<StepKey>> {
    let layers: HashSet<StepKey> = found.values().flat_map(|record| &record.layers).map(layer_key).collect();
    let seen: HashMap<StepKey, LayerRecord> = records.read(&layers.into_iter().collect::<Vec<_>>()).await?;
    let is_seen = |record: &StepRecord| record.layers.iter().all(|layer| seen.contains_key(&layer_key(layer)));
    Ok(found.iter().filter(|(_, record)| !is_seen(record)).map(|(key, _)| key.clone()).collect())
}

/// The layers of these records that the store has, with their sizes.
async fn layers_there<'a>(own: &Shelf, records: impl Iterator<Item = &'a StepRecord>) -> Result<HashMap<Digest, u64>> {
    let layers: HashSet<Digest> = records.flat_map(|record| &record.layers).map(|layer| layer.blob.digest.clone()).collect();
    let layers: Vec<Digest> = layers.into_iter().collect();
    own.sizes(&layers).await.map_err(super::cache_fault)
}

/// Whether the store has all layers of a record.
fn is_whole(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().all(|layer| there.get(&layer.blob.digest) == Some(&layer.blob.size))
}

/// Whether the store has a layer of a record that is larger or smaller than that says.
fn is_of_other_sizes(record: &StepRecord, there: &HashMap<Digest, u64>) -> bool {
    record.layers.iter().any(|layer| there.get(&layer.blob.digest).is_some_and(|size| *size != layer.blob.size))
}

/// Seconds of the Unix epoch.
pub(super) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The files of a local source.
async fn local(op: &Op, directories: &LocalDirs) -> Option<(Digest, std::result::Result<Arc<context::Tree>, String>)> {
    let (name, selection) = selection(op)?;
    let tree = match directories.get(&name).map(ToOwned::to_owned) {
        Some(root) => tokio::task::spawn_blocking(move || hashed(&root, &selection))
            .await
            .map_err(|error| error.to_string())
            .and_then(|hashed| hashed.map(Arc::new).map_err(|error| error.to_string())),
        None => Err(format!("{name} is no directory of this machine")),
    };
    Some((op.digest.clone(), tree))
}

/// Hashes a directory, more than once if it changes meanwhile.
fn hashed(root: &Path, selection: &Selection) -> std::result::Result<context::Tree, WalkError> {
    let mut tries = PLANS;
    loop {
        tries -= 1;
        match context::hash(root, selection) {
            Err(WalkError::Changed(_)) if tries > 0 => {}
            Err(WalkError::Read { error, .. }) if error.kind() == std::io::ErrorKind::NotFound && tries > 0 => {}
            hashed => return hashed,
        }
    }
}
