//! What of the result is files alone: the open steps at the end of its chain, where no command has to run on them.

use bollard_buildkit_proto::pb;

use super::decide::Plan;
use crate::domain::Digest;
use crate::graph::{Graph, Input, Op};

/// The end of the result's chain that needs nothing of what it lies on but to know which paths are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appendable {
    /// What is there: a kept state or a base image. Nothing for `FROM scratch`.
    pub base_state: Option<Input>,
    /// The open file operations, from the first to the last.
    pub steps: Vec<Digest>,
}

/// The open end of the result's chain, where it is file operations alone.
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
        // What is copied out of the very state that it is laid on would have to be there.
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

/// What a step lays files on; nothing where it does anything else.
fn below<'a>(graph: &Graph, op: &'a Op) -> Option<Option<&'a Input>> {
    match &op.op.op {
        Some(pb::op::Op::File(_)) => Some(graph.base_of(op)),
        // `COPY --link`: layers that were made on nothing.
        Some(pb::op::Op::Merge(_)) => {
            let (first, others) = op.inputs.split_first()?;
            let on_nothing = |input: &Input| graph.chain_of(input).base.is_none();
            others.iter().all(on_nothing).then_some(Some(first))
        }
        _ => None,
    }
}

/// Whether a file operation copies out of this input.
fn takes_from(op: &Op, input: &Input) -> bool {
    let Some(pb::op::Op::File(file)) = &op.op.op else { return false };
    file.actions.iter().any(|action| {
        let from = usize::try_from(action.secondary_input).ok().and_then(|index| op.inputs.get(index));
        matches!(action.action, Some(pb::file_action::Action::Copy(_))) && from == Some(input)
    })
}
