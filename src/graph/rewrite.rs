//! A graph in which available states replace the steps that lead to them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_buildkit_proto::pb;
use prost::Message;

use super::decode::{Graph, Input, InvalidGraph};
use super::wire::{Change, Malformed, fields, put, rewritten};
use crate::domain::Digest;

/// The replacement of a state: an image that the daemon can pull, or a source pinned to one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitution {
    /// `docker-image://127.0.0.1:5000/x/app@sha256:…`.
    pub identifier: String,
    /// Attributes of the source, like `image.resolvemode`.
    pub attributes: BTreeMap<String, String>,
    /// Its name in the display.
    pub name: String,
}

impl Substitution {
    /// Returns whether it is an image.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.identifier.starts_with("docker-image://")
    }
}

/// Another base for a single step; other steps may need the original state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSubstitution {
    /// The step.
    pub step: Digest,
    /// The state that it builds on in the whole graph.
    pub state: Input,
    /// The replacement of that state.
    pub substitution: Substitution,
}

/// A graph with substitutions.
#[derive(Debug, Clone)]
pub struct RewrittenGraph {
    /// The definition for the daemon.
    pub definition: pb::Definition,
    /// The digests in this graph, by the digests of the steps in the whole graph.
    pub names: HashMap<Digest, Digest>,
    /// Whether any substitution is an image.
    has_images: bool,
    /// Whether an image replaces the result of steps, and not only a base image.
    has_states: bool,
}

impl RewrittenGraph {
    /// Returns whether images replace states in it.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.has_images
    }

    /// Makes the daemon run these steps, those that the graph has, even if it has their results.
    pub fn run_anyway<'a>(&mut self, steps: impl IntoIterator<Item = &'a Digest>) {
        for name in steps.into_iter().filter_map(|step| self.names.get(step)) {
            self.definition.metadata.entry(name.to_string()).or_default().ignore_cache = true;
        }
    }

    /// Returns whether images replace the results of steps: the daemon then knows the later steps by other names than in the whole
    /// graph. Another image with the same layers in place of a base image does not change their names.
    #[must_use]
    pub fn has_states(&self) -> bool {
        self.has_states
    }
}

impl Graph {
    /// Returns the graph up to a state, with substitutions for the steps that lead to them. Names, flags and source lines are
    /// copied, so that progress and errors are those of the whole graph. Steps in `solved` have already run, and must not
    /// run again.
    ///
    /// # Errors
    /// If the graph cannot be parsed.
    pub fn rewritten(
        &self,
        state: &Input,
        substitutions: &HashMap<Input, Substitution>,
        solved: &HashSet<Digest>,
    ) -> Result<RewrittenGraph, InvalidGraph> {
        self.rewritten_on(state, substitutions, solved, None)
    }

    /// Returns [`Graph::rewritten`] with another base for one of the steps.
    ///
    /// # Errors
    /// If the graph cannot be parsed.
    pub fn rewritten_on(
        &self,
        state: &Input,
        substitutions: &HashMap<Input, Substitution>,
        solved: &HashSet<Digest>,
        ground: Option<&BaseSubstitution>,
    ) -> Result<RewrittenGraph, InvalidGraph> {
        if self.is_nothing() {
            let (definition, names) = (self.definition().clone(), HashMap::new());
            return Ok(RewrittenGraph { definition, names, has_images: false, has_states: false });
        }
        let source = |state: &Input, substitution| Source::new(self, state, substitution);
        let sources = substitutions.iter().map(|(state, substitution)| (state, source(state, substitution))).collect();
        let is_made = |state: &Input| self.op(&state.step).is_some_and(|op| !op.inputs.is_empty());
        let has_images = substitutions.values().any(Substitution::is_image) || ground.is_some();
        let has_states =
            substitutions.iter().any(|(state, substitution)| substitution.is_image() && is_made(state)) || ground.is_some();
        let ground = ground.map(|ground| (ground, source(&ground.state, &ground.substitution)));
        let (definition, names) = Grafting { sources, ground, ..Grafting::new(self, solved) }.up_to(state)?;
        Ok(RewrittenGraph { definition, names, has_images, has_states })
    }

    /// Returns the graph with further cache mounts for some of its commands.
    ///
    /// # Errors
    /// If the graph cannot be parsed.
    pub fn with_mounts(&self, mounts: HashMap<Digest, Vec<AddedMount>>) -> Result<Self, InvalidGraph> {
        let solved = HashSet::new();
        let (definition, _) = Grafting { mounts, ..Grafting::new(self, &solved) }.up_to(self.result())?;
        Self::new(definition)
    }
}

/// Returns a step's bytes as Go writes them, with the `oneof` field last: the daemon encodes each step again, and names it by these
/// bytes.
pub(super) fn encoded(op: &pb::Op) -> Vec<u8> {
    let mut bytes = pb::Op { op: None, ..op.clone() }.encode_to_vec();
    bytes.extend(pb::Op { op: op.op.clone(), ..pb::Op::default() }.encode_to_vec());
    bytes
}

/// A cache mount that begins empty, for a command that does not declare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedMount {
    /// The ID of the cache.
    pub id: String,
    /// Where the command sees it.
    pub target: String,
    /// The rule for steps that use it at the same time (`pb.CacheSharingOpt`).
    pub sharing: i32,
}

/// Returns a command's bytes with further mounts, as the frontend would declare them (BuildKit `dockerfile2llb.dispatchRunMounts`).
fn with_mounts(exec: &[u8], added: &[AddedMount]) -> Result<Vec<u8>, Malformed> {
    /// The field number of `ExecOp.mounts`. The daemon encodes its steps again, in the order of the numbers.
    const MOUNTS: u64 = 2;
    let (mut out, fields) = (Vec::with_capacity(exec.len()), fields(exec)?);
    let (before, after) = fields.split_at(fields.partition_point(|field| field.number <= MOUNTS));
    before.iter().for_each(|field| out.extend_from_slice(field.whole));
    for mount in added {
        let mount = pb::Mount {
            input: -1,
            output: -1,
            dest: mount.target.clone(),
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt { id: mount.id.clone(), sharing: mount.sharing }),
            ..pb::Mount::default()
        };
        put(&mut out, MOUNTS, &mount.encode_to_vec());
    }
    after.iter().for_each(|field| out.extend_from_slice(field.whole));
    Ok(out)
}

/// A substitution as a step.
struct Source<'a> {
    name: &'a str,
    digest: Digest,
    bytes: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(graph: &Graph, state: &Input, substitution: &'a Substitution) -> Self {
        let source = pb::SourceOp { identifier: substitution.identifier.clone(), attrs: substitution.attributes.clone() };
        let platform = graph.op(&state.step).and_then(|op| op.op.platform.clone());
        let bytes = encoded(&pb::Op { op: Some(pb::op::Op::Source(source)), platform, ..pb::Op::default() });
        Self { name: &substitution.name, digest: Digest::hash(&bytes), bytes }
    }

    /// Adds it to a definition, once.
    fn put(&self, out: &mut pb::Definition) {
        if let Entry::Vacant(metadata) = out.metadata.entry(self.digest.to_string()) {
            let description = BTreeMap::from([("llb.customname".to_owned(), self.name.to_owned())]);
            metadata.insert(pb::OpMetadata { description, ..pb::OpMetadata::default() });
            out.def.push(self.bytes.clone());
        }
    }
}

struct Grafting<'a> {
    graph: &'a Graph,
    sources: HashMap<&'a Input, Source<'a>>,
    /// The other base of one step.
    ground: Option<(&'a BaseSubstitution, Source<'a>)>,
    /// Further cache mounts of commands.
    mounts: HashMap<Digest, Vec<AddedMount>>,
    solved: &'a HashSet<Digest>,
    out: pb::Definition,
    /// The new digests of rewritten steps.
    names: HashMap<Digest, Digest>,
}

impl<'a> Grafting<'a> {
    /// Changes nothing yet.
    fn new(graph: &'a Graph, solved: &'a HashSet<Digest>) -> Self {
        let (sources, mounts, out, names) = Default::default();
        Self { graph, sources, ground: None, mounts, solved, out, names }
    }

    /// Returns the definition of a state, and the new digests of its steps.
    fn up_to(mut self, state: &Input) -> Result<(pb::Definition, HashMap<Digest, Digest>), InvalidGraph> {
        let needed = self.needed(state);
        let graph = self.graph;
        for op in graph.below(state).into_iter().filter(|op| needed.contains(&op.digest)) {
            self.op(&op.digest)?;
        }
        let end = self.input(None, state);
        let end = pb::Op { inputs: vec![end], ..pb::Op::default() };
        self.out.def.push(end.encode_to_vec());
        Ok((self.out, self.names))
    }

    /// Returns the steps that are still needed, and adds the substitutions that these need.
    fn needed(&mut self, state: &Input) -> HashSet<Digest> {
        let (mut needed, mut open) = (HashSet::new(), vec![state.clone()]);
        while let Some(state) = open.pop() {
            if let Some(source) = self.sources.get(&state) {
                source.put(&mut self.out);
            } else if needed.insert(state.step.clone())
                && let Some(op) = self.graph.op(&state.step)
            {
                open.extend(op.inputs.iter().filter(|input| self.ground_of(&op.digest, input).is_none()).cloned());
            }
        }
        if let Some((_, source)) = &self.ground {
            source.put(&mut self.out);
        }
        needed
    }

    /// Returns the other base of a step, or `None` if this input is not replaced for it.
    fn ground_of(&self, step: &Digest, input: &Input) -> Option<&Source<'_>> {
        self.ground.as_ref().filter(|(ground, _)| ground.step == *step && ground.state == *input).map(|(_, source)| source)
    }

    /// Returns an input with its new digest.
    fn input(&self, step: Option<&Digest>, input: &Input) -> pb::Input {
        let ground = step.and_then(|step| self.ground_of(step, input));
        match ground.or_else(|| self.sources.get(input)) {
            Some(source) => pb::Input { digest: source.digest.to_string(), index: 0 },
            None => {
                let step = self.names.get(&input.step).unwrap_or(&input.step);
                pb::Input { digest: step.to_string(), index: input.output }
            }
        }
    }

    fn op(&mut self, digest: &Digest) -> Result<(), InvalidGraph> {
        /// The field numbers of `Op.inputs` and `Op.exec`.
        const INPUTS: u64 = 1;
        const EXEC: u64 = 2;
        let absent = || InvalidGraph::Absent(digest.to_string());
        let (op, bytes) = self.graph.op(digest).zip(self.graph.bytes(digest)).ok_or_else(absent)?;
        let mut inputs = op.inputs.iter();
        // Other fields stay the same to the byte, known or not.
        let bytes = rewritten(bytes, |field| {
            Ok(match (field.number, inputs.len()) {
                (INPUTS, 1..) => {
                    Change::To(inputs.next().map(|input| self.input(Some(digest), input)).unwrap_or_default().encode_to_vec())
                }
                (EXEC, _) => match (self.mounts.get(digest), field.inside) {
                    (Some(mounts), Some(exec)) => Change::To(with_mounts(exec, mounts)?),
                    _ => Change::Keep,
                },
                _ => Change::Keep,
            })
        })?;
        let new = Digest::hash(&bytes);
        let (old_name, new_name) = (digest.to_string(), new.to_string());
        let whole = self.graph.definition();
        if let Some(metadata) = whole.metadata.get(&old_name) {
            let ignore_cache = metadata.ignore_cache && !self.solved.contains(digest);
            self.out.metadata.insert(new_name.clone(), pb::OpMetadata { ignore_cache, ..metadata.clone() });
        }
        if let Some(source) = &whole.source {
            let own = self.out.source.get_or_insert_with(|| pb::Source { infos: source.infos.clone(), ..pb::Source::default() });
            if let Some(location) = source.locations.get(&old_name) {
                own.locations.insert(new_name, location.clone());
            }
        }
        self.out.def.push(bytes);
        self.names.insert(digest.clone(), new);
        Ok(())
    }
}
