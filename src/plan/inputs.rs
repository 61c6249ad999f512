//! The recorded inputs of a build's steps. The next build uses them to explain why a step runs.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::facts::KnownFacts;
use super::record::{LARGE, Record};
use crate::domain::Digest;
use crate::graph::{
    Graph, InputDependency, Key, Keys, Op, Remote, ResolvedSource, apart, input_dependencies, instruction_of, stage_of,
    without_query,
};
use crate::hidden::{Hidden, shown};

/// Most changed files in an explanation.
pub(super) const NAMED: usize = 3;

/// Longest recorded text of an instruction, in bytes; of a longer one, hakobi records the digest.
pub(super) const LONGEST: usize = 4096;

/// The inputs of a build's steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// The steps, in the order of the graph.
    pub steps: Vec<StepInputs>,
}

/// The inputs of one step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepInputs {
    /// Its stage; empty if there is only one.
    pub stage: String,
    /// The instruction as the frontend names it, with the values of variables.
    pub instruction: String,
    /// The instruction as in the Dockerfile; empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub written: String,
    /// Its key, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The variables that it saw.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A digest of everything else that the operation contains.
    pub operation: String,
    /// The files of the context that it used, with their digests or other values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// The base images that it used, with their digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// The remote files and repositories that it used, with their versions. If a version was unknown: the reason, with an empty value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remotes: BTreeMap<String, String>,
    /// The steps that it used, by their indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<usize>,
    /// How long it took when it last ran, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why its result was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<Unsaved>,
}

/// Why a build recorded no result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsaved {
    /// The daemon had it in its own cache, and no other step of the stage ran.
    InDaemon,
    /// The stage has layers that its steps do not explain.
    Other,
}

impl Record for Inputs {
    const LIMIT: u64 = LARGE;
}

impl Inputs {
    /// Returns the inputs of this graph's steps, without hidden values, because hakobi records them.
    #[must_use]
    pub fn new(graph: &Graph, keys: &Keys, facts: &KnownFacts, hidden: &Hidden) -> Self {
        // An operation that is no step (a merge, a directory that the frontend makes) counts as the steps below it.
        let mut places: HashMap<&Digest, Vec<usize>> = HashMap::new();
        let mut steps = Vec::new();
        for op in graph.below(graph.result()) {
            let mut on: Vec<usize> = op.inputs.iter().filter_map(|input| places.get(&input.step)).flatten().copied().collect();
            on.dedup();
            match step(graph, op, keys, facts, on.clone(), hidden) {
                Some(step) => {
                    places.insert(&op.digest, vec![steps.len()]);
                    steps.push(step);
                }
                None => drop(places.insert(&op.digest, on)),
            }
        }
        Self { steps }
    }

    /// Adds which results were not recorded, and why.
    #[must_use]
    pub fn with_unsaved(&self, graph: &Graph, unsaved: impl Fn(&Digest) -> Option<Unsaved>) -> Self {
        let mut out = self.clone();
        for (step, op) in out.steps.iter_mut().zip(explained(graph)) {
            step.unsaved = unsaved(&op.digest);
        }
        out
    }
}

/// Returns the steps of a graph that `Inputs` contains, in its order: commands and copies.
#[must_use]
pub fn explained(graph: &Graph) -> Vec<&Op> {
    graph.below(graph.result()).into_iter().filter(|op| has_inputs(op)).collect()
}

pub(super) fn has_inputs(op: &Op) -> bool {
    matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_))) && !is_internal(op)
}

/// Returns whether a step is the frontend's own. Such a step is in no Dockerfile, and users cannot change it.
#[must_use]
pub fn is_internal(op: &Op) -> bool {
    op.name.starts_with("[internal]")
}

/// Returns the text of an instruction, or the digest of a very long one.
pub(super) fn remembered(written: String) -> String {
    if written.len() <= LONGEST { written } else { Digest::hash(written.as_bytes()).to_string() }
}

pub(super) fn step(
    graph: &Graph,
    op: &Op,
    keys: &Keys,
    facts: &KnownFacts,
    on: Vec<usize>,
    hidden: &Hidden,
) -> Option<StepInputs> {
    if !has_inputs(op) {
        return None;
    }
    let mut out = StepInputs {
        stage: stage_of(&op.name).map(|stage| stage.0).unwrap_or_default(),
        instruction: hidden.text(instruction_of(&op.name)).into_owned(),
        written: graph.written(&op.digest).map(|written| remembered(hidden.text(&written).into_owned())).unwrap_or_default(),
        on,
        key: match keys.state(&crate::graph::Input { step: op.digest.clone(), output: 0 }) {
            Key::Known(key) => Some(key.hex()),
            _ => None,
        },
        ..StepInputs::default()
    };
    // Variables are kept apart, because an explanation can name them.
    let (env, rest) = apart(op);
    out.env = env.into_iter().map(|(name, value)| (name.clone(), hidden.text(shown(&name, &value)).into_owned())).collect();
    // The digest of a short text with a secret would let others guess the secret.
    if !operation_holds(op, hidden) {
        out.operation = rest.hex()[..16].to_owned();
    }
    for (input, used) in op.inputs.iter().zip(input_dependencies(op)) {
        let Some(source) = graph.op(&input.step) else { continue };
        if let Some(image) = source.image() {
            let (name, digest) = image.split_once('@').unwrap_or((image, ""));
            out.images.insert(hidden.text(name).into_owned(), digest.to_owned());
        }
        match facts.remotes.get(&input.step) {
            Some(Ok(holds)) => {
                out.remotes.extend(remote(source, holds).map(|(name, what)| (hidden.text(&name).into_owned(), what)));
            }
            Some(Err(why)) => drop(out.remotes.insert(hidden.text(why).into_owned(), String::new())),
            None => {}
        }
        if let (InputDependency::Content(selectors), Some(Ok(tree))) = (used, facts.locals.get(&input.step)) {
            for (path, digest) in tree.selected_paths(&selectors) {
                out.files.insert(hidden.text(&path).into_owned(), digest.hex()[..16].to_owned());
            }
        }
    }
    Some(out)
}

/// Returns whether a step's operation, without its variables, contains a hidden value.
pub(super) fn operation_holds(op: &Op, hidden: &Hidden) -> bool {
    let mut op = op.op.clone();
    if let Some(pb::op::Op::Exec(exec)) = &mut op.op
        && let Some(meta) = &mut exec.meta
    {
        meta.env.clear();
        meta.proxy_env = None;
    }
    hidden.is_in(&op.encode_to_vec())
}

/// Returns the name and the version of a remote source. Returns `None` if the source is none that hakobi knows.
pub(super) fn remote(source: &Op, holds: &ResolvedSource) -> Option<(String, String)> {
    let what = match holds {
        ResolvedSource::File { content, .. } => content.to_string(),
        ResolvedSource::Commit(commit) => format!("commit {commit}"),
    };
    match Remote::from_op(source)?.ok()? {
        Remote::File { url } => Some((without_query(&url).to_owned(), what)),
        Remote::Repository { url, reference, .. } if reference.is_empty() => Some((url, what)),
        Remote::Repository { url, reference, .. } => Some((format!("{url}#{reference}"), what)),
    }
}

/// Returns a text short enough for one line.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
