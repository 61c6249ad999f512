//! The stages of a Dockerfile as they appear in the graph: states that other steps copy files from.

use std::collections::{HashMap, HashSet};

use bollard_buildkit_proto::pb;

use super::decode::{Graph, Input, Op};
use crate::domain::Digest;

/// `build`, `stage-1`: the frontend's name of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageName(pub String);

/// A side stage: another step copies files from it, and the final image's layers do not contain its steps.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Its last state that files are copied from.
    pub state: Input,
    /// The steps on its own chain of layers, from the first to the last.
    pub steps: Vec<Step>,
}

/// A step that makes one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The digest of the step.
    pub digest: Digest,
    /// The number of the input that its layer is based on.
    pub base_input: usize,
}

impl Graph {
    /// Returns the side stages: all states with layers of their own that a copy or mount takes files from.
    #[must_use]
    pub fn side_stages(&self) -> Vec<Stage> {
        let mut seen = HashSet::new();
        let mut out: Vec<Stage> = Vec::new();
        for op in self.below(self.result()) {
            for input in side_inputs(op) {
                let makes_layers =
                    self.op(&input.step).is_some_and(|op| matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_))));
                if !makes_layers || !seen.insert(input.clone()) {
                    continue;
                }
                let steps = self.chain(&input);
                let name = steps.iter().rev().find_map(|step| stage_of(&self.op(&step.digest)?.name));
                let Some(name) = name else { continue };
                out.push(Stage { name, state: input, steps });
            }
        }
        // Files may be copied from two states of one stage: the state with more steps contains the other.
        let held = |stage: &Stage, all: &[Stage]| {
            all.iter().any(|other| {
                other.state != stage.state && other.steps.len() > stage.steps.len() && other.steps.starts_with(&stage.steps)
            })
        };
        let all = out.clone();
        out.retain(|stage| !held(stage, &all));
        out
    }

    /// Returns the steps with layers on a state's own chain, from the base up.
    #[must_use]
    pub fn chain(&self, state: &Input) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut next = self.op(&state.step);
        while let Some(op) = next.filter(|op| matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_)))) {
            // A step without a base (`FROM scratch`) is the first of its chain.
            let base_input = base_input(op);
            steps.push(Step { digest: op.digest.clone(), base_input: base_input.unwrap_or(usize::MAX) });
            next = base_input.and_then(|index| self.op(&op.inputs.get(index)?.step));
        }
        steps.reverse();
        steps
    }
}

/// A state's own chain of layers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The states on it, from the first to the last.
    pub links: Vec<Link>,
    /// The state that the first one is based on; `None` for an empty state.
    pub base: Option<Input>,
}

/// A state on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The state.
    pub state: Input,
    /// The step that made its last layer. For a merge (`COPY --link`), this is another step than the state's own.
    pub made_by: Digest,
    /// The number of its layers above the base.
    pub layers: usize,
}

impl Chain {
    /// Returns the number of layers above the base.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.links.last().map_or(0, |link| link.layers)
    }
}

impl Graph {
    /// Returns the state that a step's layer is based on, or `None` for an empty state.
    #[must_use]
    pub fn base_of<'a>(&self, op: &'a Op) -> Option<&'a Input> {
        base_input(op).and_then(|index| op.inputs.get(index))
    }

    /// Returns all steps whose files a state may have: those that made its layers, down to its sources. A command's mounts and the
    /// sources of copies are not among them.
    #[must_use]
    pub fn lineage(&self, state: &Input) -> Vec<&Op> {
        let (mut lineage, mut seen, mut open): (Vec<&Op>, HashSet<&Digest>, Vec<&Input>) =
            (Vec::new(), HashSet::new(), vec![state]);
        while let Some(op) = open.pop().and_then(|state| self.op(&state.step)) {
            if seen.insert(&op.digest) {
                lineage.push(op);
                match &op.op.op {
                    Some(pb::op::Op::Exec(_) | pb::op::Op::File(_)) => open.extend(self.base_of(op)),
                    _ => open.extend(&op.inputs),
                }
            }
        }
        lineage
    }

    /// Returns the chain that ends at a state. Each command and each file operation adds a layer; a merge adds the layers that it
    /// merges into the first input.
    #[must_use]
    pub fn chain_of(&self, state: &Input) -> Chain {
        let tops = self.tops(state);
        let (mut chain, mut next) = (Chain::default(), Some(state));
        while let Some(state) = next {
            let top = tops.get(&state.step);
            let Some((made_by, layers)) = top.and_then(|top| Some((top.made_by.clone()?, top.layers))) else {
                chain.base = Some(state.clone()).filter(|_| top.is_none_or(|top| top.is_based));
                break;
            };
            chain.links.push(Link { state: state.clone(), made_by, layers });
            next = self.op(&state.step).and_then(|op| match &op.op.op {
                Some(pb::op::Op::Merge(_)) => op.inputs.first(),
                _ => self.base_of(op),
            });
        }
        chain.links.reverse();
        chain
    }

    /// Returns the top of the chain of each step that a state needs. A chain may be as long as the graph, and merges may name a state
    /// again and again, so this calls itself for no input.
    fn tops(&self, state: &Input) -> HashMap<&Digest, Top> {
        let mut tops: HashMap<&Digest, Top> = HashMap::new();
        for op in self.below(state) {
            let based = Top { is_based: true, ..Top::default() };
            let of = |input: Option<&Input>| match input {
                Some(input) => tops.get(&input.step).cloned().unwrap_or_else(|| based.clone()),
                None => Top::default(),
            };
            let top = match &op.op.op {
                Some(pb::op::Op::Exec(_) | pb::op::Op::File(_)) => {
                    let base = of(self.base_of(op));
                    Top { made_by: Some(op.digest.clone()), layers: base.layers.saturating_add(1), ..base }
                }
                Some(pb::op::Op::Merge(_)) => {
                    let parts: Vec<Top> = op.inputs.iter().skip(1).map(|input| of(Some(input))).collect();
                    // A merged state with a base of its own would add that base's layers too.
                    if parts.iter().any(|part| part.is_based) {
                        based
                    } else {
                        let first = of(op.inputs.first());
                        let layers = parts.iter().fold(first.layers, |layers, part| layers.saturating_add(part.layers));
                        let made_by = parts.into_iter().rev().find_map(|part| part.made_by).or_else(|| Some(op.digest.clone()));
                        Top { made_by, layers, ..first }
                    }
                }
                _ if self.is_nothing() => Top::default(),
                _ => based,
            };
            tops.insert(&op.digest, top);
        }
        tops
    }
}

/// The top of a chain.
#[derive(Clone, Default)]
struct Top {
    /// Whether the chain is based on a state.
    is_based: bool,
    /// The number of layers above the base.
    layers: usize,
    /// The step that made the last of them, if there is any.
    made_by: Option<Digest>,
}

/// Returns the number of the input that a step's layer is based on, or `None`.
fn base_input(op: &Op) -> Option<usize> {
    let index = match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.mounts.iter().find(|mount| mount.dest == "/")?.input,
        Some(pb::op::Op::File(file)) => base_of_actions(file, op.inputs.len())?,
        _ => return None,
    };
    usize::try_from(index).ok().filter(|index| *index < op.inputs.len())
}

/// Returns the number of the input that a file operation is based on, or `None`. Its actions build on each other: numbers from the
/// count of inputs on are actions.
fn base_of_actions(file: &pb::FileOp, inputs: usize) -> Option<i64> {
    let inputs = i64::try_from(inputs).ok()?;
    let mut action = file.actions.iter().rev().find(|action| action.output >= 0)?;
    for _ in 0..file.actions.len() {
        if action.input < inputs {
            return Some(action.input).filter(|index| *index >= 0);
        }
        action = file.actions.get(usize::try_from(action.input - inputs).ok()?)?;
    }
    None
}

/// Returns the states that a step copies files from without building on them.
fn side_inputs(op: &Op) -> Vec<Input> {
    let indexes: Vec<i64> = match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.mounts.iter().filter(|mount| mount.dest != "/").map(|mount| mount.input).collect(),
        Some(pb::op::Op::File(file)) => file
            .actions
            .iter()
            .map(|action| match &action.action {
                Some(pb::file_action::Action::Copy(_)) => action.secondary_input,
                _ => -1,
            })
            .collect(),
        Some(pb::op::Op::Merge(merge)) => merge.inputs.iter().map(|input| input.input).collect(),
        Some(pb::op::Op::Diff(diff)) => diff.upper.iter().map(|upper| upper.input).collect(),
        _ => Vec::new(),
    };
    indexes.into_iter().filter_map(|index| op.inputs.get(usize::try_from(index).ok()?).cloned()).collect()
}

/// Returns the instruction in a step's name, as in the Dockerfile.
#[must_use]
pub fn instruction_of(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, instruction)| instruction)
}

/// Returns the stage in a step's name: `[build 2/5] RUN …`, `[linux/amd64 build 2/5] …`. Returns `None` without a stage, as in a
/// Dockerfile with only one.
#[must_use]
pub fn stage_of(name: &str) -> Option<StageName> {
    let inner = name.strip_prefix('[')?.split_once(']')?.0;
    let words: Vec<&str> = inner.split(' ').filter(|word| !word.is_empty()).collect();
    let (last, front) = words.split_last()?;
    let (step, of) = last.split_once('/')?;
    if step.parse::<u32>().is_err() || of.parse::<u32>().is_err() {
        return None;
    }
    let stage = front.last().filter(|word| !word.contains('/'))?;
    Some(StageName((*stage).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::*;

    /// Anybody may have written the graph of a record.
    #[test]
    fn a_chain_may_be_long_and_merge_itself() {
        let mut made = Made::default();
        let mut state = made.source("docker-image://base");
        for number in 0..3000 {
            state = made.command(&state, &number.to_string());
        }
        let chain = made.graph(&state).chain_of(&state);
        assert_eq!((chain.links.len(), chain.layers(), chain.base.is_some()), (3000, 3000, true));

        let mut made = Made::default();
        let mut state = made.on(&[], pb::op::Op::File(pb::FileOp::default()));
        for _ in 0..100 {
            state = made.on(&[&state, &state], pb::op::Op::Merge(pb::MergeOp::default()));
        }
        let chain = made.graph(&state).chain_of(&state);
        assert_eq!((chain.links.len(), chain.layers(), chain.base), (101, usize::MAX, None));
    }

    #[test]
    fn stages_are_read_from_names() {
        for (name, stage) in [
            ("[build 2/5] RUN make", Some("build")),
            ("[stage-1 3/3] COPY a b", Some("stage-1")),
            ("[linux/amd64 build 2/5] RUN make", Some("build")),
            ("[linux/amd64 2/5] RUN make", None),
            ("[2/5] RUN make", None),
            ("[internal] load build context", None),
            ("exporting to image", None),
        ] {
            assert_eq!(stage_of(name), stage.map(|stage| StageName(stage.to_owned())), "{name}");
        }
    }
}
