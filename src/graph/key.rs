//! Computes the key of each step: of its operation and everything that it rests on. A step has no key if an input is not known
//! exactly.

use std::collections::HashMap;

use bollard_buildkit_proto::pb;

use super::canonical::{InputDependency, canonical, input_dependencies};
use super::decode::{Graph, Input, Op};
use super::remote::{self, ResolvedSource, names_a_commit};
use crate::domain::{ChainId, CopiedContentKey, Digest, Hasher, PartialKey, Selector, StepKey};

/// The facts about a graph's sources, and about files that its steps made before.
pub trait Facts {
    /// Returns the chain of a base image's layers, or `None` if it has no layers.
    ///
    /// # Errors
    /// Why that is not known.
    fn image(&self, source: &Op) -> Result<Option<ChainId>, String>;

    /// Returns the content of the selected files of a local source.
    ///
    /// # Errors
    /// Why it is not known.
    fn local(&self, source: &Op, selectors: &[Selector]) -> Result<Digest, String>;

    /// Returns the present version of a remote file or repository.
    ///
    /// # Errors
    /// Why that is not known.
    fn remote(&self, source: &Op) -> Result<ResolvedSource, String>;

    /// Returns the content of files copied out of a step's result, or `None` if hakobi never saw it.
    fn copied_content(&self, copied: &CopySource) -> Option<Digest>;
}

/// A step's key, or why it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The key of everything that it depends on.
    Known(StepKey),
    /// It copies files out of another step's result, and their content is not known before that step runs.
    Waits(CopySource),
    /// The key cannot be determined without running the step.
    Unknown(String),
}

/// The files that a step copies out of another step's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The result.
    pub state: Input,
    /// The selected files.
    pub selectors: Vec<Selector>,
    /// The key of their content's record; `None` if the result has no key.
    pub key: Option<CopiedContentKey>,
}

impl CopySource {
    /// Returns the state and the selected files: they identify the files in this run, with or without a key.
    #[must_use]
    pub fn place(&self) -> (Input, Vec<Selector>) {
        (self.state.clone(), self.selectors.clone())
    }
}

/// The keys of all steps of a graph.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    by_step: HashMap<Digest, Key>,
    key_without_copied_content: HashMap<Digest, Weak>,
    copied: Vec<CopySource>,
}

/// A key without the content of files copied out of other steps' results.
#[derive(Debug, Clone)]
struct Weak {
    key: StepKey,
    /// Whether there is such content.
    leaves_out: bool,
}

impl Keys {
    /// Computes the keys of all steps that the graph's result needs.
    #[must_use]
    pub fn new(graph: &Graph, facts: &dyn Facts) -> Self {
        let mut keys = Self::default();
        for op in graph.below(graph.result()) {
            let (key, key_without_copied_content) = keys.step(graph, op, facts);
            keys.by_step.insert(op.digest.clone(), key);
            keys.key_without_copied_content.extend(
                key_without_copied_content.map(|key_without_copied_content| (op.digest.clone(), key_without_copied_content)),
            );
        }
        keys
    }

    /// Returns the key of a state: of a step and one of its outputs.
    #[must_use]
    pub fn state(&self, state: &Input) -> Key {
        match self.by_step.get(&state.step) {
            Some(Key::Known(step)) => Key::Known(output_of(step, state.output).key()),
            Some(other) => other.clone(),
            None => Key::Unknown("it is not in the build graph".to_owned()),
        }
    }

    /// Returns the key that a state shares with states that differ only in the content copied out of other steps' results. Returns
    /// `None` if nothing is copied, or the rest is not known.
    #[must_use]
    pub fn key_without_copied_content(&self, state: &Input) -> Option<PartialKey> {
        self.key_without_copied_content
            .get(&state.step)
            .filter(|key_without_copied_content| key_without_copied_content.leaves_out)
            .map(|key_without_copied_content| output_of(&key_without_copied_content.key, state.output).0.partial_key())
    }

    /// Returns all files that steps copy out of other steps' results.
    #[must_use]
    pub fn copy_sources(&self) -> &[CopySource] {
        &self.copied
    }

    fn step(&mut self, graph: &Graph, op: &Op, facts: &dyn Facts) -> (Key, Option<Weak>) {
        let unknown = |why: &str| (Key::Unknown(why.to_owned()), None);
        if graph.is_nothing() {
            let key = Keyed::new("nothing").key();
            return (Key::Known(key.clone()), Some(Weak { key, leaves_out: false }));
        }
        if let Some(pb::op::Op::Source(source)) = &op.op.op {
            let key = of_source(op, source, graph.bytes(&op.digest), facts);
            let key_without_copied_content = match &key {
                Key::Known(key) => Some(Weak { key: key.clone(), leaves_out: false }),
                _ => None,
            };
            return (key, key_without_copied_content);
        }
        let Some(bytes) = graph.bytes(&op.digest) else { return unknown("it is not in the build graph") };
        match &op.op.op {
            Some(pb::op::Op::Exec(_) | pb::op::Op::File(_) | pb::op::Op::Merge(_) | pb::op::Op::Diff(_)) => {}
            _ => return unknown("hakobi does not support this kind of step"),
        }
        let Ok(own) = canonical(op, bytes) else { return unknown("failed to read the step") };
        let (mut strong, mut key_without_copied_content) = (Keyed::new("step"), Some((Keyed::new("weak"), false)));
        strong.bytes(&own);
        if let Some((key_without_copied_content, _)) = &mut key_without_copied_content {
            key_without_copied_content.bytes(&own);
        }
        // Look at every input to find all copied files, even if one of the inputs has no key.
        let mut missing = None;
        for (input, used) in op.inputs.iter().zip(input_dependencies(op)) {
            let part = self.input(graph, input, used, facts);
            key_without_copied_content = match (key_without_copied_content, part.key_without_copied_content) {
                (Some((mut hasher, leaves_out)), Some(own)) => {
                    hasher.bytes(own.key.as_bytes());
                    Some((hasher, leaves_out || own.leaves_out))
                }
                _ => None,
            };
            match part.strong {
                Ok((kind, digest)) => {
                    strong.bytes(kind.as_bytes());
                    strong.bytes(digest.as_bytes());
                }
                // An input that can never be known counts more than one to wait for.
                Err(key @ Key::Unknown(_)) => missing = Some(key),
                Err(key) => missing = missing.or(Some(key)),
            }
        }
        let key_without_copied_content =
            key_without_copied_content.map(|(hasher, leaves_out)| Weak { key: hasher.key(), leaves_out });
        (missing.unwrap_or_else(|| Key::Known(strong.key())), key_without_copied_content)
    }

    fn input(&mut self, graph: &Graph, input: &Input, used: InputDependency, facts: &dyn Facts) -> Part {
        let source = graph.op(&input.step);
        let local = source.filter(|op| is_local(op));
        let selectors = match (used, local) {
            (InputDependency::Content(selectors), _) => selectors,
            (InputDependency::State, Some(_)) => vec![Selector::everything()],
            (InputDependency::State, None) => {
                let key_without_copied_content =
                    self.key_without_copied_content.get(&input.step).map(|key_without_copied_content| WeakPart {
                        key: output_of(&key_without_copied_content.key, input.output).key().to_string(),
                        leaves_out: key_without_copied_content.leaves_out,
                    });
                return match self.state(input) {
                    Key::Known(key) => Part { strong: Ok(("state", key.to_string())), key_without_copied_content },
                    other => Part { strong: Err(other), key_without_copied_content },
                };
            }
        };
        if let Some(op) = local {
            return match facts.local(op, &selectors) {
                Ok(digest) => {
                    let digest = digest.to_string();
                    let key_without_copied_content = WeakPart { key: digest.clone(), leaves_out: false };
                    Part { strong: Ok(("content", digest)), key_without_copied_content: Some(key_without_copied_content) }
                }
                Err(why) => Part { strong: Err(Key::Unknown(why)), key_without_copied_content: None },
            };
        }
        let key_without_copied_content = WeakPart { key: selected("taken", &selectors).key().to_string(), leaves_out: true };
        let key = match self.state(input) {
            Key::Known(state) => Some(taken_of(&state, &selectors)),
            _ => None,
        };
        let copied = CopySource { state: input.clone(), selectors, key };
        let known = facts.copied_content(&copied);
        if !self.copied.contains(&copied) {
            self.copied.push(copied.clone());
        }
        let strong = known.map(|digest| ("content", digest.to_string())).ok_or(Key::Waits(copied));
        Part { strong, key_without_copied_content: Some(key_without_copied_content) }
    }
}

/// The part of a step's key that an input contributes.
struct Part {
    strong: Result<(&'static str, String), Key>,
    key_without_copied_content: Option<WeakPart>,
}

/// The part that it contributes to the key without copied content.
struct WeakPart {
    key: String,
    leaves_out: bool,
}

fn of_source(op: &Op, source: &pb::SourceOp, bytes: Option<&[u8]>, facts: &dyn Facts) -> Key {
    let scheme = source.identifier.split("://").next().unwrap_or_default();
    let mut hasher = Keyed::new(scheme);
    match scheme {
        "docker-image" => match facts.image(op) {
            // Like BuildKit: by the layers, whatever the image's name is (`source/containerimage/pull.go`: `CacheKey`).
            Ok(chain) => {
                hasher.bytes(chain.map(|chain| chain.to_string()).unwrap_or_default().as_bytes());
                Key::Known(hasher.key())
            }
            Err(why) => Key::Unknown(why),
        },
        // A file by its digest, a repository by its commit: these never change.
        "http" | "https" if source.attrs.contains_key("http.checksum") => exact(hasher, bytes),
        "git" if names_a_commit(source) => exact(hasher, bytes),
        "http" | "https" | "git" => match facts.remote(op) {
            Ok(holds) => of_remote(op, bytes, &holds),
            Err(why) => Key::Unknown(why),
        },
        // Only the files that steps copy count, never the directory itself.
        "local" => Key::Unknown("a directory has no key of its own".to_owned()),
        other => Key::Unknown(format!("hakobi does not support sources of the kind {other}")),
    }
}

/// Returns the key of a remote source, like BuildKit. The key of a file contains its bytes, its name, its owner and its time
/// (`source/http`: `CacheKey`). The key of a repository contains its commit.
fn of_remote(op: &Op, bytes: Option<&[u8]>, holds: &ResolvedSource) -> Key {
    let Some(own) = bytes.and_then(|bytes| remote::canonical(op, bytes, holds).ok()) else {
        return Key::Unknown("failed to read the source".to_owned());
    };
    let mut hasher = match holds {
        // `http://` and `https://` give the same file.
        ResolvedSource::File { .. } => Keyed::new("file"),
        ResolvedSource::Commit(_) => Keyed::new("git"),
    };
    hasher.bytes(&own);
    if let ResolvedSource::File { content, modified } = holds {
        hasher.bytes(content.to_string().as_bytes());
        hasher.bytes(modified.as_bytes());
    }
    Key::Known(hasher.key())
}

fn exact(mut hasher: Keyed, bytes: Option<&[u8]>) -> Key {
    hasher.bytes(bytes.unwrap_or_default());
    Key::Known(hasher.key())
}

pub(super) fn is_local(op: &Op) -> bool {
    matches!(&op.op.op, Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://"))
}

fn output_of(step: &StepKey, output: i64) -> Keyed {
    let mut hasher = Keyed::new("state");
    hasher.bytes(step.to_string().as_bytes());
    hasher.bytes(&output.to_be_bytes());
    hasher
}

fn taken_of(state: &StepKey, selectors: &[Selector]) -> CopiedContentKey {
    let mut hasher = selected("taken", selectors);
    hasher.bytes(state.to_string().as_bytes());
    hasher.0.copied_content_key()
}

fn selected(kind: &str, selectors: &[Selector]) -> Keyed {
    let mut hasher = Keyed::new(kind);
    for selector in selectors {
        let (flags, lists) = ([selector.wildcard, selector.follow], [&selector.include, &selector.exclude, &selector.required]);
        hasher.bytes(selector.path.as_bytes());
        hasher.bytes(&flags.map(u8::from));
        for list in lists {
            hasher.bytes(&(list.len() as u64).to_be_bytes());
            list.iter().for_each(|pattern| hasher.bytes(pattern.as_bytes()));
        }
    }
    hasher
}

/// A hasher of parts with their lengths, so that two lists of parts never give the same bytes.
struct Keyed(Hasher);

impl Keyed {
    /// Returns a hasher for this kind of key. The version of the rules is part of every key, so that other rules give other keys.
    fn new(kind: &str) -> Self {
        let mut keyed = Self(Hasher::default());
        keyed.bytes(b"hakobi key 1");
        keyed.bytes(kind.as_bytes());
        keyed
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn key(self) -> StepKey {
        self.0.step_key()
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
