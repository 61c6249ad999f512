//! The stages of a Dockerfile as they show in the graph: states that other steps take files from.

use std::collections::HashSet;

use bollard_buildkit_proto::pb;

use super::decode::{Graph, Input, Op};
use crate::domain::Digest;

/// `build`, `stage-1`; the frontend's own word for a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageName(pub String);

/// A stage whose files another step takes, so that the final image's layers do not hold its steps.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Its last state that is taken from.
    pub state: Input,
    /// The steps on its own chain of layers, from the first to the last.
    pub steps: Vec<Step>,
}

/// A step that makes one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub digest: Digest,
    /// Which of its inputs its layer lies on.
    pub base_input: usize,
}

impl Graph {
    /// The stages beside the final one: all states with layers of their own that a copy or mount takes files from.
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
        // The same stage may be taken from at two of its states: the one with more steps holds the other.
        let held = |stage: &Stage, all: &[Stage]| {
            all.iter().any(|other| {
                other.state != stage.state && other.steps.len() > stage.steps.len() && other.steps.starts_with(&stage.steps)
            })
        };
        let all = out.clone();
        out.retain(|stage| !held(stage, &all));
        out
    }

    /// The steps with layers on a state's own chain, from the base up.
    #[must_use]
    pub fn chain(&self, state: &Input) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut next = self.op(&state.step);
        while let Some(op) = next.filter(|op| matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_)))) {
            // A step on nothing (`FROM scratch`) is the first of its chain.
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
    /// What the first lies on; nothing where that is nothing.
    pub base: Option<Input>,
}

/// A state on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The state.
    pub state: Input,
    /// The step that made its last layer: another than the state's own where that is merged (`COPY --link`).
    pub made_by: Digest,
    /// The layers above the base that it has.
    pub layers: usize,
}

impl Chain {
    /// The layers above the base.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.links.last().map_or(0, |link| link.layers)
    }
}

impl Graph {
    /// What a step's layer lies on; nothing where that is nothing.
    #[must_use]
    pub fn base_of<'a>(&self, op: &'a Op) -> Option<&'a Input> {
        base_input(op).and_then(|index| op.inputs.get(index))
    }

    /// The chain that a state is the end of: each command and each file operation adds a layer, and a merge those of what is merged
    /// into the first.
    #[must_use]
    pub fn chain_of(&self, state: &Input) -> Chain {
        let Some(op) = self.op(&state.step) else { return Chain { links: Vec::new(), base: Some(state.clone()) } };
        match &op.op.op {
            Some(pb::op::Op::Exec(_) | pb::op::Op::File(_)) => {
                let mut chain = base_input(op).and_then(|index| op.inputs.get(index)).map(|base| self.chain_of(base));
                let chain = chain.get_or_insert_default();
                let layers = chain.layers() + 1;
                chain.links.push(Link { state: state.clone(), made_by: op.digest.clone(), layers });
                std::mem::take(chain)
            }
            Some(pb::op::Op::Merge(_)) => {
                let mut parts = op.inputs.iter().map(|input| self.chain_of(input));
                let mut chain = parts.next().unwrap_or_default();
                let (mut layers, mut made_by) = (chain.layers(), op.digest.clone());
                for part in parts {
                    // What is merged and lies on a base of its own would bring that base's layers too.
                    if part.base.is_some() {
                        return Chain { links: Vec::new(), base: Some(state.clone()) };
                    }
                    layers += part.layers();
                    made_by = part.links.last().map_or(made_by, |link| link.made_by.clone());
                }
                chain.links.push(Link { state: state.clone(), made_by, layers });
                chain
            }
            _ if self.is_nothing() => Chain::default(),
            _ => Chain { links: Vec::new(), base: Some(state.clone()) },
        }
    }
}

/// Which input a step's layer lies on.
fn base_input(op: &Op) -> Option<usize> {
    let index = match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.mounts.iter().find(|mount| mount.dest == "/")?.input,
        Some(pb::op::Op::File(file)) => base_of_actions(file, op.inputs.len())?,
        _ => return None,
    };
    usize::try_from(index).ok().filter(|index| *index < op.inputs.len())
}

/// A file operation's actions build on each other: numbers from the count of inputs on are actions.
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

/// The states that a step takes files from without building on them.
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

/// The instruction in a step's name, as the Dockerfile has it.
#[must_use]
pub fn instruction_of(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, instruction)| instruction)
}

/// The stage in a step's name: `[build 2/5] RUN …`, `[linux/amd64 build 2/5] …`. A Dockerfile with one stage names none.
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
    use super::*;

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
