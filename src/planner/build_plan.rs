//! The plan of a build as a value: the compiled graph, the facts about its sources, its keys, and the cached states.

use std::collections::HashMap;
use std::sync::Arc;

use crate::build::Compiled;
use crate::build_context::{Selection, Tree};
use crate::domain::{CopiedContentKey, DiffId, Digest, Platform, StepKey};
use crate::engine::buildkit::LocalDirs;
use crate::error::{Error, Result};
use crate::graph::{CacheMount, Graph, Input, Key, Keys, Op, Substitution, cache_mounts, pinned};
use crate::handover::KnownImage;
use crate::mounts::record::MountsRecord;
use crate::plan::{
    AutoMount, CopiedContentRecord, DaemonRecord, KnownFacts, Plan, RecordKey, StepRecord, aligned, layer_name, selection,
};
use crate::planner::compiled_key::CompiledKey;

/// A planned build.
pub struct BuildPlan {
    pub compiled: Compiled,
    pub graph: Graph,
    pub facts: KnownFacts,
    pub keys: Keys,
    pub decision: Plan,
    /// The recorded content of files that steps copy out of stages.
    pub copied: HashMap<CopiedContentKey, CopiedContentRecord>,
    /// The base images that a registry has, by their place in the graph.
    pub bases: HashMap<Input, KnownImage>,
    /// Why hakobi did not assemble the new layers, if there is more to say than that a command must run.
    pub not_assembled: Option<String>,
    /// The directories of its local sources.
    pub directories: LocalDirs,
    /// The key of its compiled form, if hakobi may record that.
    pub compiled_by: Option<CompiledKey>,
    /// Whether this build must record its compiled form.
    pub is_new_form: bool,
    /// The recorded base images, if a registry does not say what they are now.
    pub recorded_bases: Option<HashMap<Input, StepRecord>>,
    /// States that the daemon made itself, and the marker that identifies the daemon.
    pub daemon_states: Option<DaemonRecord>,
    /// Commands that ran earlier than this run again; in seconds of the Unix epoch.
    pub since: Option<u64>,
    /// The key of the image's cache mounts, unless the build must not use any.
    pub mounts_key: Option<RecordKey<MountsRecord>>,
    /// The cache mounts of the image's last build: `None` if hakobi has not asked for them, `Some(None)` if there are none.
    pub mounts: Option<Option<MountsRecord>>,
    /// The mounts that `--auto-mounts` gives to commands of the frontend's graph, if their base images have no files there.
    pub auto_mounts: Vec<AutoMount>,
    /// The answers of the store, by all keys that hakobi looked up.
    pub found: HashMap<StepKey, Option<StepRecord>>,
}

/// The states and base images whose layers the cache has lost.
#[derive(Debug, Default)]
pub struct LostLayers {
    /// The keys of states that lack a layer.
    pub states: Vec<StepKey>,
    /// Recorded base images that lack a layer.
    pub bases: Vec<Input>,
}

impl BuildPlan {
    /// Returns a compiled build without decisions.
    pub fn new(compiled: Compiled, graph: Graph, facts: KnownFacts) -> Self {
        Self {
            compiled,
            graph,
            facts,
            keys: Keys::default(),
            decision: Plan::default(),
            copied: HashMap::new(),
            bases: HashMap::new(),
            not_assembled: None,
            directories: LocalDirs::default(),
            compiled_by: None,
            is_new_form: false,
            recorded_bases: None,
            daemon_states: None,
            since: None,
            mounts_key: None,
            mounts: None,
            auto_mounts: Vec::new(),
            found: HashMap::new(),
        }
    }

    /// Returns the key of the result, or `None` if it has no key.
    pub fn result_key(&self) -> Option<StepKey> {
        match self.keys.state(self.graph.result()) {
            Key::Known(key) => Some(key),
            _ => None,
        }
    }

    /// Aligns the history in the frontend's configuration with the layers, like BuildKit's exporter. Images that hakobi assembles
    /// then have the same history as images of the daemon. A daemon that builds on substituted images would write their names into
    /// the history.
    pub fn align_history(&mut self) {
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

    /// Returns the platform of the image.
    ///
    /// # Errors
    /// If the frontend did not report it.
    pub fn platform(&self) -> Result<Platform> {
        self.compiled.platform().ok_or_else(|| Error::build("the frontend did not report the image's platform"))
    }

    /// Returns whether the daemon has made all cached states itself, so that it needs no layer of the store.
    pub fn daemon_has_all(&self) -> bool {
        let Some(there) = &self.daemon_states else { return false };
        let made = |state| matches!(self.keys.state(state), Key::Known(key) if there.states.contains(&key));
        self.decision.cached.keys().all(made)
    }

    /// Returns whether all base images are known. A remote daemon may reach registries that this host does not reach. The steps on
    /// such a base image have no key, so BuildKit decides better.
    pub fn knows_bases(&self) -> bool {
        self.facts.images.values().all(std::result::Result::is_ok)
    }

    /// Returns whether a record agrees with the registries on the layers of base images.
    pub fn agrees(&self, record: &StepRecord) -> bool {
        let told = self.bases.values().flat_map(|base| base.manifest.layers.iter().zip(&base.diff_ids));
        let told: HashMap<&Digest, (u64, &DiffId)> = told.map(|(blob, diff_id)| (&blob.digest, (blob.size, diff_id))).collect();
        record.layers.iter().all(|layer| {
            told.get(&layer.blob.digest).is_none_or(|(size, diff_id)| *size == layer.blob.size && **diff_id == layer.diff_id)
        })
    }

    /// Returns the commands that run and have a cache mount.
    pub fn open_mounts(&self) -> Vec<(&Op, Vec<CacheMount>)> {
        let open = self.graph.below(self.graph.result()).into_iter().filter(|op| self.decision.runs(&op.digest));
        open.map(|op| (op, cache_mounts(op))).filter(|(_, mounts)| !mounts.is_empty()).collect()
    }

    pub fn decide_by_found(&self) -> Plan {
        let records = self.found.iter().filter_map(|(key, record)| Some((key.clone(), record.clone()?))).collect();
        Plan::new(&self.graph, &self.keys, &records, &self.facts.seen, self.since)
    }

    /// Decides again without records of the store.
    pub fn without_records(&mut self) {
        self.found.clear();
        self.recorded_bases = self.recorded_bases.take().map(|_| HashMap::new());
        self.decision = self.decide_by_found();
    }

    /// Forgets states and recorded base images whose layers the cache has lost.
    pub fn without_layers(&mut self, lost: LostLayers) {
        self.found.extend(lost.states.into_iter().map(|key| (key, None)));
        if let Some(bases) = &mut self.recorded_bases {
            lost.bases.iter().for_each(|base| drop(bases.remove(base)));
        }
    }

    /// Returns the hashed files that its keys contain, by the local sources that select them.
    pub fn expected(&self) -> Vec<((String, Selection), Arc<Tree>)> {
        let ops = self.graph.below(self.graph.result()).into_iter();
        let trees = ops.filter_map(|op| {
            let tree = self.facts.locals.get(&op.digest)?.as_ref().ok()?;
            Some((selection(op)?, Arc::clone(tree)))
        });
        trees.collect()
    }

    /// Returns whether the files of all local sources are known.
    pub fn knows_sources(&self) -> bool {
        self.facts.locals.values().all(std::result::Result::is_ok)
    }

    /// Returns substitutions that pin remote sources to the versions that hakobi found.
    pub fn pins(&self) -> impl Iterator<Item = (Input, Substitution)> {
        self.facts.remotes.iter().filter_map(|(step, holds)| {
            let op = self.graph.op(step)?;
            let (identifier, attributes) = pinned(op, holds.as_ref().ok()?)?;
            Some((Input { step: step.clone(), output: 0 }, Substitution { identifier, attributes, name: op.name.clone() }))
        })
    }

    /// Forgets the versions of remote sources, because the daemon or a later request got another version.
    pub fn without_pins(&mut self) {
        for holds in self.facts.remotes.values_mut().filter(|holds| holds.is_ok()) {
            *holds = Err("it changed before the daemon read it".to_owned());
        }
        self.facts.asked.clear();
    }

    /// Returns the base image that is the whole result, if a registry has it. Returns `None` if the cache has the result, or the
    /// build adds layers.
    pub fn base_alone(&self) -> Option<&KnownImage> {
        let result = self.graph.result();
        let is_open = !self.decision.cached.contains_key(result);
        self.bases.get(result).filter(|_| is_open)
    }
}
