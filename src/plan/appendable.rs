//! Finds the open steps at the end of the result's chain, if all of them only add files and no command has to run on them.

use bollard_buildkit_proto::pb;

use super::decide::Plan;
use crate::domain::Digest;
use crate::graph::{Graph, Input, Op};

/// The end of the result's chain that needs only the paths of the state below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appendable {
    /// The state below: a cached state or a base image. `None` for `FROM scratch`.
    pub base_state: Option<Input>,
    /// The open file operations, from the first to the last.
    pub steps: Vec<Digest>,
}

/// Returns the open end of the result's chain. Returns `None` if it has other steps than file operations.
#[must_use]
pub fn appendable(graph: &Graph, plan: &Plan) -> Option<Appendable> {
    let mut steps = Vec::new();
    let mut state = Some(graph.result().clone());
    while let Some(at) = &state {
        let op = graph.op(&at.step)?;
        if plan.cached.contains_key(at) || op.image().is_some() {
            break;
        }
        let base = below(graph, op)?;
        // A copy out of the state below would need that state's files.
        if base.is_some_and(|base| takes_from(op, base)) {
            return None;
        }
        steps.push(op.digest.clone());
        state = base.cloned();
    }
    steps.reverse();
    let made = |input: &Input| steps.contains(&input.step);
    for op in graph.below(graph.result()).into_iter().filter(|op| plan.runs(&op.digest)) {
        let base = below(graph, op).flatten();
        let on_the_chain = |input: &&Input| steps.contains(&op.digest) && base == Some(*input);
        if op.inputs.iter().filter(|input| !on_the_chain(input)).any(made) {
            return None;
        }
    }
    (!steps.is_empty()).then_some(Appendable { base_state: state, steps })
}

/// Returns the state that a step adds files to, if it has one. The outer `None` means that the step does something else.
fn below<'a>(graph: &Graph, op: &'a Op) -> Option<Option<&'a Input>> {
    match &op.op.op {
        Some(pb::op::Op::File(_)) => Some(graph.base_of(op)),
        // `COPY --link`: BuildKit makes these layers on an empty state.
        Some(pb::op::Op::Merge(_)) => {
            let (first, others) = op.inputs.split_first()?;
            let on_nothing = |input: &Input| graph.chain_of(input).base.is_none();
            others.iter().all(on_nothing).then_some(Some(first))
        }
        _ => None,
    }
}

/// Returns whether a file operation copies out of this input.
fn takes_from(op: &Op, input: &Input) -> bool {
    let Some(pb::op::Op::File(file)) = &op.op.op else { return false };
    file.actions.iter().any(|action| {
        let from = usize::try_from(action.secondary_input).ok().and_then(|index| op.inputs.get(index));
        matches!(action.action, Some(pb::file_action::Action::Copy(_))) && from == Some(input)
    })
}
