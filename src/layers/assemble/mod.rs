//! The assembler: makes the layer that BuildKit would make for a file operation, without the files of the state below.
//!
//! BuildKit is the definition (`solver/llbsolver/file/backend.go`, fsutil `copy/copy.go`), from v0.8 in Docker 20.10 to v0.25 in
//! 28.5. If the result is not certain, or differs between these versions, it is [`AssemblyDoubt::UnknownPaths`] and the daemon
//! makes the layer. `state` is the file system that the operations work on. `copy` and `make` are the operations. `layer` is their
//! result, and `write` its tar.

mod archive;
mod copy;
mod differ;
mod doubt;
mod given;
mod layer;
mod links;
mod make;
mod owner;
mod source;
mod state;
mod write;

pub(super) use archive::{HEAD, may_be_archive};

use bollard_buildkit_proto::pb;

use super::entry::Kind;
use super::index::PathIndex;
pub use doubt::AssemblyDoubt;
use doubt::unsure;
use given::seconds;
pub use given::{Files, Source};
pub use layer::{AssembledEntry, AssembledKind, AssembledLayer, Content};
use source::Tree;
use state::State;
pub use write::WriteError;

/// Returns where BuildKit finds that a path of a state leads.
///
/// # Errors
/// If there are too many links, or the result is not certain.
pub(super) fn leads_to(state: &PathIndex, path: &str) -> Result<String, AssemblyDoubt> {
    links::root_path(path, |path| match &state.get(path)?.kind {
        Kind::Link(target) => Some(target),
        _ => None,
    })
}

/// Assembles the layer of a file operation on the state `base`. `source` returns the source of an input by its number, or `None`
/// for another kind of input. hakobi reads the first bytes of files that `ADD` might unpack.
///
/// # Errors
/// If BuildKit refuses the operation, or its result is not certain.
pub fn assemble_layer<'a>(
    op: &pb::Op,
    base: &PathIndex,
    source: &dyn Fn(usize) -> Option<Source<'a>>,
) -> Result<AssembledLayer, AssemblyDoubt> {
    let Some(pb::op::Op::File(file)) = &op.op else { return unsure("it is not a file operation") };
    let nothing = PathIndex::default();
    let on_nothing = file.actions.first().is_some_and(|first| first.input == -1);
    let mut state = State::new(if on_nothing { &nothing } else { base });
    for (number, action) in file.actions.iter().enumerate() {
        in_a_row(number, action, op.inputs.len(), file.actions.len())?;
        match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => {
                let owner = owner::resolve(&state, copy.owner.as_ref(), action.input)?;
                let input = usize::try_from(action.secondary_input).ok().filter(|input| *input < op.inputs.len());
                let from = input.and_then(|input| source(input).map(|source| (input, source)));
                let Some((input, from)) = from else { return unsure("it copies from a source that is not a build context") };
                copy::copy(&mut state, &Tree::new(input, from)?, copy, owner)?;
            }
            Some(pb::file_action::Action::Mkdir(action_of)) => {
                let owner = owner::resolve(&state, action_of.owner.as_ref(), action.input)?;
                make::directory(&mut state, action_of, owner)?;
            }
            Some(pb::file_action::Action::Mkfile(action_of)) => {
                let owner = owner::resolve(&state, action_of.owner.as_ref(), action.input)?;
                make::file(&mut state, action_of, owner)?;
            }
            Some(pb::file_action::Action::Symlink(action_of)) => {
                let owner = owner::resolve(&state, action_of.owner.as_ref(), action.input)?;
                make::link(&mut state, action_of, owner)?;
            }
            Some(pb::file_action::Action::Rm(action)) => make::remove(&mut state, action)?,
            #[allow(unreachable_patterns, reason = "unknown kinds of file actions")]
            _ => return unsure("it uses an action that hakobi does not support"),
        }
    }
    state.finish()
}

/// Checks that each action works on the result of the one before, and only the last has an output: they make one layer then
/// (`ops/file.go`: `FileOpSolver.Solve`). The Dockerfile frontend makes such operations.
fn in_a_row(number: usize, action: &pb::FileAction, inputs: usize, actions: usize) -> Result<(), AssemblyDoubt> {
    let number_of = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let input = match number {
        0 => action.input < number_of(inputs),
        number => action.input == number_of(inputs + number - 1),
    };
    let output = action.output == if number + 1 == actions { 0 } else { -1 };
    if input && output { Ok(()) } else { unsure("its actions are not in sequence") }
}

/// Returns an operation's time in seconds of the Unix epoch (`SOURCE_DATE_EPOCH`), like `backend.go:timestampToTime`. Returns
/// `None` if it sets none.
fn time_of(timestamp: i64) -> Result<Option<u64>, AssemblyDoubt> {
    match timestamp {
        -1 => Ok(None),
        nanoseconds => seconds(nanoseconds).map(Some),
    }
}

#[cfg(test)]
mod tests;
