//! The operations without a source: `mkdir` (`WORKDIR`), `mkfile` (heredocs), `symlink` and `rm` (`file/backend.go`).

use bollard_buildkit_proto::pb;

use super::doubt::{AssemblyDoubt, refused, unsure};
use super::layer::Content;
use super::state::{Node, NodeKind, Owner, Seen, State};
use super::time_of;
use crate::domain::spelled_text;

/// The bits that a daemon's umask removes; BuildKit's own umask does not.
const UMASK: u32 = 0o022;

pub(super) fn directory(state: &mut State<'_>, action: &pb::FileActionMkDir, owner: Option<Owner>) -> Result<(), AssemblyDoubt> {
    let path = state.resolved(&spelled_text(&action.path))?;
    let modified = time_of(action.timestamp)?;
    if action.make_parents {
        // Only new directories get these bits.
        if state.seen(&path)? == Seen::Nothing {
            state.make_directories(&path, masked(action.mode)?, owner, modified)?;
            return Ok(());
        }
        return state.make_directories(&path, 0o755, owner, modified).map(drop);
    }
    if state.seen(&path)? != Seen::Nothing {
        return Ok(());
    }
    if state.inherits_group(&path) {
        return unsure(format!("the parent directory of /{path} has the setgid bit"));
    }
    state.make_directory(&path, masked(action.mode)?, owner.unwrap_or_default(), modified)
}

pub(super) fn file(state: &mut State<'_>, action: &pb::FileActionMkFile, owner: Option<Owner>) -> Result<(), AssemblyDoubt> {
    let path = state.resolved(&spelled_text(&action.path))?;
    match state.seen(&path)? {
        Seen::Nothing => {}
        Seen::Directory => return refused(format!("open /{path}: is a directory")),
        // It keeps its mode and its owner.
        Seen::File | Seen::Link => return unsure(format!("the step changes the existing file /{path}")),
    }
    if owner.is_none() && state.inherits_group(&path) {
        return unsure(format!("the parent directory of /{path} has the setgid bit"));
    }
    let kind = NodeKind::File(Content::Bytes(action.data.as_slice().into()));
    state.put(&path, Node::new(kind, masked(action.mode)?, owner.unwrap_or_default(), time_of(action.timestamp)?))
}

pub(super) fn link(state: &mut State<'_>, action: &pb::FileActionSymlink, owner: Option<Owner>) -> Result<(), AssemblyDoubt> {
    let path = state.resolved(&spelled_text(&action.newpath))?;
    if state.seen(&path)? != Seen::Nothing {
        return refused(format!("symlink {} /{path}: file exists", action.oldpath));
    }
    if owner.is_none() && state.inherits_group(&path) {
        return unsure(format!("the parent directory of /{path} has the setgid bit"));
    }
    let kind = NodeKind::Link(spelled_text(&action.oldpath).into_owned());
    state.put(&path, Node::new(kind, 0o777, owner.unwrap_or_default(), time_of(action.timestamp)?))
}

pub(super) fn remove(state: &mut State<'_>, action: &pb::FileActionRm) -> Result<(), AssemblyDoubt> {
    if action.allow_wildcard {
        return unsure("it removes files by wildcard");
    }
    let path = crate::build_context::clean(&format!("/{}", spelled_text(&action.path)));
    let Some((directory, name)) = path[1..].rsplit_once('/').or(Some(("", &path[1..]))).filter(|(_, name)| !name.is_empty())
    else {
        return refused("rmPath: invalid empty path");
    };
    let at = crate::layers::joined(&state.resolved(directory)?, name);
    match state.seen(&at)? {
        // Older versions follow the link.
        Seen::Link => unsure(format!("it removes the link /{at}")),
        Seen::Nothing if action.allow_not_found => Ok(()),
        // This is no error in older versions.
        Seen::Nothing => unsure(format!("it removes /{at}, which does not exist")),
        Seen::Directory | Seen::File => state.remove(&at),
    }
}

/// Returns the mode of a new file.
///
/// # Errors
/// If a umask would change the mode.
fn masked(mode: i32) -> Result<u32, AssemblyDoubt> {
    let mode = mode.cast_unsigned() & 0o777;
    if mode & UMASK != 0 { unsure(format!("the result of the mode {mode:o} depends on the daemon's umask")) } else { Ok(mode) }
}
