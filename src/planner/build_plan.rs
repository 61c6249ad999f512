//! The plan of a build as a value: the compiled graph, what is known of its sources, its keys, and what is kept.

use std::collections::HashMap;
use std::sync::Arc;

use crate::build::Compiled;
use crate::build_context::{Selection, Tree};
use crate::domain::{CopiedContentKey, DiffId, Digest, Platform, StepKey};
use crate::engine::buildkit::LocalDirs;
use crate::error::{Error, Result};
use crate::graph::{Graph, Input, Key, Keys, Op, Substitution, pinned};
use crate::handover::KnownImage;
use crate::plan::{CopiedContentRecord, DaemonRecord, KnownFacts, Plan, StepRecord, aligned, layer_name, selection};
use crate::planner::compiled_key::CompiledKey;

/// A build that was planned.
pub struct BuildPlan {
    pub compiled: Compiled,
    pub graph: Graph,
    pub facts: KnownFacts,
    pub keys: Keys,
    pub decision: Plan,
    /// What was taken out of stages, as it was remembered.
    pub copied: HashMap<CopiedContentKey, CopiedContentRecord>,
    /// The base images, by where they stand in the graph, where a registry has them.
    pub bases: HashMap<Input, KnownImage>,
    /// Why its new files were not laid down here, where that takes more than was known.
    pub not_assembled: Option<String>,
    /// The directories of its local sources.
    pub directories: LocalDirs,
    /// What its compiled form is remembered by, where it may be.
    pub compiled_by: Option<CompiledKey>,
    /// Whether its compiled form is to be remembered, and is not yet.
    pub is_new_form: bool,
    /// The base images as they are kept, where a registry does not say what they are now.
    pub recorded_bases: Option<HashMap<Input, StepRecord>>,
    /// States that the daemon made itself, and the mark by which it is known again.
    pub daemon_states: Option<DaemonRecord>,
    /// Commands that ran earlier run again; in seconds of the Unix epoch.
    pub since: Option<u64>,
    /// What the store has, by all keys that it was asked for.
    pub found: HashMap<StepKey, Option<StepRecord>>,
}

/// What the cache has lost.
#[derive(Debug, Default)]
pub struct LostLayers {
    /// The keys of states with a layer that is gone.
    pub states: Vec<StepKey>,
    /// Recorded base images with a layer that is gone.
    pub bases: Vec<Input>,
}

impl BuildPlan {
    /// A compiled build of which nothing was decided yet.
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
            found: HashMap::new(),
        }
    }

    /// The key of the result, where it has one.
    pub fn result_key(&self) -> Option<StepKey> {
        match self.keys.state(self.graph.result()) {
            Key::Known(key) => Some(key),
            _ => None,
        }
    }

    /// Brings the history in the frontend's configuration into line with the layers, as BuildKit's exporter would: images that are put
    /// together here then have the history of those that the daemon makes. A daemon that has images in place of steps would
    /// name those.
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

    /// The platform that the image is for.
    pub fn platform(&self) -> Result<Platform> {
        self.compiled.platform().ok_or_else(|| Error::build("the frontend did not report the image's platform"))
    }

    /// Whether the daemon has all that is kept from its own work, so that it needs nothing of the store.
    pub fn is_there(&self) -> bool {
        let Some(there) = &self.daemon_states else { return false };
        let made = |state| matches!(self.keys.state(state), Key::Known(key) if there.states.contains(&key));
        self.decision.cached.keys().all(made)
    }

    /// Whether all base images are known. A daemon elsewhere may reach registries that this host does not, and what is built on them
    /// has no key then: BuildKit decides better.
    pub fn knows_bases(&self) -> bool {
        self.facts.images.values().all(std::result::Result::is_ok)
    }

    /// Whether a record says of the layers of base images what their registries say.
    pub fn agrees(&self, record: &StepRecord) -> bool {
        let told = self.bases.values().flat_map(|base| base.manifest.layers.iter().zip(&base.diff_ids));
        let told: HashMap<&Digest, (u64, &DiffId)> = told.map(|(blob, diff_id)| (&blob.digest, (blob.size, diff_id))).collect();
        record.layers.iter().all(|layer| {
            told.get(&layer.blob.digest).is_none_or(|(size, diff_id)| *size == layer.blob.size && **diff_id == layer.diff_id)
        })
    }

    pub fn decide_by_found(&self) -> Plan {
        let records = self.found.iter().filter_map(|(key, record)| Some((key.clone(), record.clone()?))).collect();
        Plan::new(&self.graph, &self.keys, &records, &self.facts.seen, self.since)
    }

    /// Plans again with nothing from the store.
    pub fn without_records(&mut self) {
        self.found.clear();
        self.recorded_bases = self.recorded_bases.take().map(|_| HashMap::new());
        self.decision = self.decide_by_found();
    }

    /// Forgets states and recorded bases that the cache has lost layers of.
    pub fn without_layers(&mut self, lost: LostLayers) {
        self.found.extend(lost.states.into_iter().map(|key| (key, None)));
        if let Some(bases) = &mut self.recorded_bases {
            lost.bases.iter().for_each(|base| drop(bases.remove(base)));
        }
    }

    /// The files that its keys were made of, by the local sources that select them.
    pub fn expected(&self) -> Vec<((String, Selection), Arc<Tree>)> {
        let ops = self.graph.below(self.graph.result()).into_iter();
        let trees = ops.filter_map(|op| {
            let tree = self.facts.locals.get(&op.digest)?.as_ref().ok()?;
            Some((selection(op)?, Arc::clone(tree)))
        });
        trees.collect()
    }

    /// Whether it is known of each of its local sources which files it is.
    pub fn knows_sources(&self) -> bool {
        self.facts.locals.values().all(std::result::Result::is_ok)
    }

    /// What was found, as the only thing that the daemon may bring.
    pub fn pins(&self) -> impl Iterator<Item = (Input, Substitution)> {
        self.facts.remotes.iter().filter_map(|(step, holds)| {
            let op = self.graph.op(step)?;
            let (identifier, attributes) = pinned(op, holds.as_ref().ok()?)?;
            Some((Input { step: step.clone(), output: 0 }, Substitution { identifier, attributes, name: op.name.clone() }))
        })
    }

    /// Forgets what was found elsewhere: the daemon gets something else there, or the next request does.
    pub fn without_pins(&mut self) {
        for holds in self.facts.remotes.values_mut().filter(|holds| holds.is_ok()) {
            *holds = Err("it changed before the daemon read it".to_owned());
        }
        self.facts.asked.clear();
    }

    /// The base image that is the whole result, if a registry has it.
    pub fn base_alone(&self) -> Option<&KnownImage> {
        let result = self.graph.result();
        let is_open = !self.decision.cached.contains_key(result);
        self.bases.get(result).filter(|_| is_open)
    }
}
