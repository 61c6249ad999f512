//! Decodes the graph from its definition, and makes definitions from the graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_buildkit_proto::pb;
use prost::Message;

use crate::domain::Digest;

/// Largest accepted graph, in steps: more than any Dockerfile has.
const LIMIT: usize = 100_000;

/// The error for a definition that is no graph.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InvalidGraph {
    /// A step's bytes cannot be parsed.
    #[error("failed to read a step of the build graph: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A step needs a step that is missing.
    #[error("a step of the build graph needs the missing step {0}")]
    Absent(String),
    /// An invalid digest.
    #[error(transparent)]
    Digest(#[from] crate::domain::InvalidDigest),
    /// A step is truncated.
    #[error(transparent)]
    Malformed(#[from] super::wire::Malformed),
    /// The graph is empty.
    #[error("the build graph is empty")]
    Empty,
    /// The graph is too large.
    #[error("the build graph has more than {LIMIT} steps")]
    TooLarge,
}

/// An output of another step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// The step.
    pub step: Digest,
    /// The number of its output.
    pub output: i64,
}

/// The place of a step in the user's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `Dockerfile`.
    pub file: String,
    /// The line, from 1.
    pub line: i32,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Op {
    /// The digest of its bytes, by which other steps name it.
    pub digest: Digest,
    /// The decoded operation.
    pub op: pb::Op,
    /// Its inputs, in order.
    pub inputs: Vec<Input>,
    /// `[build 2/5] RUN make`; empty if the frontend set no name.
    pub name: String,
    /// Whether it must always run (`--no-cache`).
    pub ignores_cache: bool,
}

impl Op {
    /// Returns the step's file operation, or `None` for another kind of step.
    #[must_use]
    pub fn files(&self) -> Option<&pb::FileOp> {
        match &self.op.op {
            Some(pb::op::Op::File(files)) => Some(files),
            _ => None,
        }
    }

    /// Returns whether the step runs a command.
    #[must_use]
    pub fn is_command(&self) -> bool {
        matches!(self.op.op, Some(pb::op::Op::Exec(_)))
    }

    /// Returns the reference of the step's image, or `None` if the step is no image source.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        let Some(pb::op::Op::Source(source)) = &self.op.op else { return None };
        source.identifier.strip_prefix("docker-image://")
    }
}

/// The graph. Its last step, which has no operation, names the result.
#[derive(Debug, Clone)]
pub struct Graph {
    definition: pb::Definition,
    ops: HashMap<Digest, Op>,
    /// The index of each step in the definition.
    places: HashMap<Digest, usize>,
    result: Input,
}

impl Graph {
    /// Decodes a definition.
    ///
    /// # Errors
    /// If it is not complete.
    pub fn new(definition: pb::Definition) -> Result<Self, InvalidGraph> {
        if definition.def.len() > LIMIT {
            return Err(InvalidGraph::TooLarge);
        }
        let mut ops = HashMap::with_capacity(definition.def.len());
        let mut places = HashMap::with_capacity(definition.def.len());
        let mut last = None;
        for (place, bytes) in definition.def.iter().enumerate() {
            let digest = Digest::hash(bytes);
            let op = pb::Op::decode(&bytes[..])?;
            let inputs = op
                .inputs
                .iter()
                .map(|input| Ok(Input { step: input.digest.parse()?, output: input.index }))
                .collect::<Result<Vec<_>, InvalidGraph>>()?;
            if let Some(absent) = inputs.iter().find(|input| !ops.contains_key(&input.step)) {
                return Err(InvalidGraph::Absent(absent.step.to_string()));
            }
            let metadata = definition.metadata.get(&digest.to_string());
            let name = metadata.and_then(|metadata| metadata.description.get("llb.customname")).cloned().unwrap_or_default();
            let ignores_cache = metadata.is_some_and(|metadata| metadata.ignore_cache);
            last = Some(digest.clone());
            // A step may be there twice, and another one may need the first of them.
            places.entry(digest.clone()).or_insert(place);
            ops.insert(digest.clone(), Op { digest, op, inputs, name, ignores_cache });
        }
        let result = match last.and_then(|digest| ops.get(&digest)) {
            Some(last) => last.inputs.first().cloned().ok_or(InvalidGraph::Empty)?,
            // `FROM scratch` with only metadata.
            None => {
                let step = Digest::hash(b"");
                let (op, inputs, name) = (pb::Op::default(), Vec::new(), String::new());
                ops.insert(step.clone(), Op { digest: step.clone(), op, inputs, name, ignores_cache: false });
                Input { step, output: 0 }
            }
        };
        Ok(Self { definition, ops, places, result })
    }

    /// Returns the result of the whole graph.
    #[must_use]
    pub fn result(&self) -> &Input {
        &self.result
    }

    /// Returns whether the result has no layers, because the graph has no steps.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.definition.def.is_empty()
    }

    /// Returns a step, or `None` if the graph does not have it.
    #[must_use]
    pub fn op(&self, digest: &Digest) -> Option<&Op> {
        self.ops.get(digest)
    }

    /// Returns a definition's bytes.
    #[must_use]
    pub fn encoded(definition: &pb::Definition) -> Vec<u8> {
        definition.encode_to_vec()
    }

    /// Decodes a definition's bytes.
    ///
    /// # Errors
    /// If they cannot be parsed.
    pub fn decoded(bytes: &[u8]) -> Result<pb::Definition, InvalidGraph> {
        Ok(pb::Definition::decode(bytes)?)
    }

    /// Forces steps to run, like `--no-cache`.
    pub fn run_anyway<'a>(&mut self, steps: impl IntoIterator<Item = &'a Digest>) {
        for step in steps {
            if let Some(op) = self.ops.get_mut(step) {
                op.ignores_cache = true;
                self.definition.metadata.entry(step.to_string()).or_default().ignore_cache = true;
            }
        }
    }

    /// Returns the frontend's definition.
    pub(super) fn definition(&self) -> &pb::Definition {
        &self.definition
    }

    /// Returns a step's bytes, or `None` if the graph does not have it.
    #[must_use]
    pub fn bytes(&self, digest: &Digest) -> Option<&[u8]> {
        self.definition.def.get(*self.places.get(digest)?).map(Vec::as_slice)
    }

    /// Returns all steps that a state needs, including its own; each comes after those that it needs.
    #[must_use]
    pub fn below(&self, state: &Input) -> Vec<&Op> {
        let mut wanted = HashSet::new();
        let mut open = vec![&state.step];
        while let Some(step) = open.pop() {
            if wanted.insert(step)
                && let Some(op) = self.ops.get(step)
            {
                open.extend(op.inputs.iter().map(|input| &input.step));
            }
        }
        self.in_order(wanted)
    }

    /// Returns these steps; each comes after those that it needs, as in the definition.
    pub(super) fn in_order<'a>(&self, steps: impl IntoIterator<Item = &'a Digest>) -> Vec<&Op> {
        let mut ops: Vec<&Op> = steps.into_iter().filter_map(|step| self.ops.get(step)).collect();
        ops.sort_by_key(|op| self.places.get(&op.digest));
        ops
    }

    /// Returns the graph up to one state, with the metadata and source lines of its steps. Its steps have already run, so none of
    /// them is forced to run (`--no-cache`): that would make another result.
    #[must_use]
    pub fn cut(&self, state: &Input) -> pb::Definition {
        if self.is_nothing() {
            return self.definition.clone();
        }
        let needed: HashSet<String> = self.below(state).into_iter().map(|op| op.digest.to_string()).collect();
        let mut def: Vec<Vec<u8>> =
            self.definition.def.iter().filter(|bytes| needed.contains(&Digest::hash(bytes).to_string())).cloned().collect();
        let end = pb::Op { inputs: vec![pb::Input { digest: state.step.to_string(), index: state.output }], ..pb::Op::default() };
        def.push(end.encode_to_vec());
        let metadata = self
            .definition
            .metadata
            .iter()
            .filter(|(digest, _)| needed.contains(*digest))
            .map(|(digest, metadata)| (digest.clone(), pb::OpMetadata { ignore_cache: false, ..metadata.clone() }))
            .collect();
        let source = self.definition.source.clone().map(|mut source| {
            source.locations.retain(|digest, _| needed.contains(digest));
            source
        });
        pb::Definition { def, metadata, source }
    }

    /// Returns the references of all base images, as the frontend resolved them.
    #[must_use]
    pub fn base_images(&self) -> Vec<&str> {
        let mut images: Vec<&str> = self.ops.values().filter_map(Op::image).collect();
        images.sort_unstable();
        images.dedup();
        images
    }

    /// Returns the user's file as it was compiled, or `None` if it is missing or not UTF-8.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<&str> {
        let infos = &self.definition.source.as_ref()?.infos;
        infos.iter().find(|info| info.filename == file).and_then(|info| std::str::from_utf8(&info.data).ok())
    }

    /// Returns all of the user's files that are UTF-8.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let infos = self.definition.source.iter().flat_map(|source| &source.infos);
        infos.filter_map(|info| std::str::from_utf8(&info.data).ok())
    }

    /// Returns a step's lines in the user's file, before variables are replaced. Returns `None` if the step is in no file.
    #[must_use]
    pub fn written(&self, step: &Digest) -> Option<String> {
        let source = self.definition.source.as_ref()?;
        let location = source.locations.get(&step.to_string())?.locations.first()?;
        let info = source.infos.get(usize::try_from(location.source_index).ok()?)?;
        let line = |position: &Option<pb::Position>| usize::try_from(position.as_ref()?.line).ok();
        let first = location.ranges.iter().filter_map(|range| line(&range.start)).min().filter(|first| *first > 0)?;
        let last = location.ranges.iter().filter_map(|range| line(&range.end)).max()?.max(first);
        let text = String::from_utf8_lossy(&info.data);
        let lines: Vec<&str> = text.lines().skip(first - 1).take(last + 1 - first).map(str::trim_end).collect();
        Some(lines.join("\n")).filter(|lines| !lines.trim().is_empty())
    }

    /// Returns the place of each step in the user's file.
    #[must_use]
    pub fn places(&self) -> BTreeMap<String, Place> {
        let Some(source) = &self.definition.source else { return BTreeMap::new() };
        let place = |locations: &pb::Locations| {
            let location = locations.locations.first()?;
            let line = location.ranges.first()?.start.as_ref()?.line;
            let file = usize::try_from(location.source_index).ok().and_then(|index| source.infos.get(index))?;
            Some(Place { file: file.filename.clone(), line })
        };
        source.locations.iter().filter_map(|(digest, locations)| Some((digest.clone(), place(locations)?))).collect()
    }
}
