//! A step's operation in the form for its key: all its bytes, without what BuildKit omits from its own key. The inputs are also
//! left out, because their keys are added separately (`solver/llbsolver/ops/exec.go` and `file.go`: `CacheMap`).

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message;

use super::decode::{Graph, Op};
use super::wire::{Change, Field, Malformed, rewritten};
use crate::domain::{Digest, OperationKey, Selector, has_wildcards, spelled_text};

/// How an input contributes to a key. Selections keep the order of the arguments, because the last of two files with one name wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputDependency {
    /// By all steps that led to it.
    State,
    /// By the content of the files that are copied out of it.
    Content(Vec<Selector>),
}

/// Field numbers (`solver/pb/ops.proto`).
mod number {
    pub(super) const OP_INPUTS: u64 = 1;
    pub(super) const OP_EXEC: u64 = 2;
    pub(super) const OP_FILE: u64 = 4;
    pub(super) const EXEC_META: u64 = 1;
    pub(super) const EXEC_MOUNTS: u64 = 2;
    pub(super) const META_PROXY: u64 = 5;
    pub(super) const META_HOSTS: u64 = 6;
    pub(super) const HOST_IP: u64 = 2;
    pub(super) const MOUNT_SELECTOR: u64 = 2;
    pub(super) const FILE_ACTIONS: u64 = 2;
    pub(super) const ACTION_COPY: u64 = 4;
    pub(super) const COPY_SRC: u64 = 1;
}

/// Returns the operation's bytes for the key.
///
/// # Errors
/// If they cannot be parsed.
pub(super) fn canonical(op: &Op, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    rewritten(bytes, |field| match field.number {
        number::OP_INPUTS => Ok(Change::Drop),
        number::OP_EXEC => nested(field, exec),
        number::OP_FILE => nested(field, |inside| file(inside, op)),
        _ => Ok(Change::Keep),
    })
}

fn nested(field: &Field<'_>, change: impl FnOnce(&[u8]) -> Result<Vec<u8>, Malformed>) -> Result<Change, Malformed> {
    Ok(Change::To(change(field.inside.ok_or(Malformed)?)?))
}

fn exec(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    rewritten(bytes, |field| match field.number {
        number::EXEC_META => nested(field, |meta| {
            rewritten(meta, |field| match field.number {
                number::META_PROXY => Ok(Change::Drop),
                number::META_HOSTS => nested(field, |host| without(host, number::HOST_IP)),
                _ => Ok(Change::Keep),
            })
        }),
        number::EXEC_MOUNTS => nested(field, |mount| without(mount, number::MOUNT_SELECTOR)),
        _ => Ok(Change::Keep),
    })
}

fn without(message: &[u8], number: u64) -> Result<Vec<u8>, Malformed> {
    rewritten(message, |field| Ok(if field.number == number { Change::Drop } else { Change::Keep }))
}

/// Returns a file operation whose copies contribute only the base names of their sources; the keys of the inputs cover their
/// content.
fn file(bytes: &[u8], op: &Op) -> Result<Vec<u8>, Malformed> {
    let Some(pb::op::Op::File(decoded)) = &op.op.op else { return Err(Malformed) };
    let mut actions = decoded.actions.iter();
    rewritten(bytes, |field| match field.number {
        number::FILE_ACTIONS => {
            let from_input = actions.next().is_some_and(|action| is_input(op, action.secondary_input));
            nested(field, |action| {
                rewritten(action, |field| match field.number {
                    number::ACTION_COPY if from_input => nested(field, |copy| {
                        rewritten(copy, |field| match (field.number, field.inside) {
                            (number::COPY_SRC, Some(src)) => Ok(Change::To(base_name(src).to_vec())),
                            _ => Ok(Change::Keep),
                        })
                    }),
                    _ => Ok(Change::Keep),
                })
            })
        }
        _ => Ok(Change::Keep),
    })
}

/// Returns the last component, like Go's `path.Base`.
fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    if path.is_empty() { b"/" } else { &path[start..] }
}

fn is_input(op: &Op, index: i64) -> bool {
    usize::try_from(index).is_ok_and(|index| index < op.inputs.len())
}

/// Returns the variables that a step sees, and the digest of the rest of its operation. For explanations, never for a key.
#[must_use]
pub fn apart(op: &Op) -> (BTreeMap<String, String>, Digest) {
    let mut rest = pb::Op { inputs: Vec::new(), ..op.op.clone() };
    let mut variables = BTreeMap::new();
    if let Some(pb::op::Op::Exec(exec)) = &mut rest.op
        && let Some(meta) = &mut exec.meta
    {
        let own = std::mem::take(&mut meta.env);
        let pairs = own.iter().filter_map(|variable| variable.split_once('='));
        variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        meta.proxy_env = None;
    }
    (variables, Digest::hash(&rest.encode_to_vec()))
}

/// Returns the key of a step's operation without its inputs. Returns `None` if the step is not in the graph or cannot be parsed.
#[must_use]
pub fn operation_key(graph: &Graph, op: &Op) -> Option<OperationKey> {
    let canonical = canonical(op, graph.bytes(&op.digest)?).ok()?;
    Some(OperationKey::hash(&[b"hakobi shape 1\n", &*canonical].concat()))
}

/// Returns how each input of a step contributes to its key.
#[must_use]
pub fn input_dependencies(op: &Op) -> Vec<InputDependency> {
    let mut all: Vec<InputDependency> = match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => of_exec(op, exec),
        Some(pb::op::Op::File(file)) => of_file(op, file),
        _ => Vec::new(),
    };
    all.resize(op.inputs.len(), InputDependency::State);
    all
}

/// Returns how the inputs of a command contribute. A mount's source contributes only its content if nothing else of the source can
/// end up in the step's result.
fn of_exec(op: &Op, exec: &pb::ExecOp) -> Vec<InputDependency> {
    let mut copied: BTreeMap<usize, Option<Vec<Selector>>> = BTreeMap::new();
    for mount in &exec.mounts {
        let Some(index) = usize::try_from(mount.input).ok().filter(|index| *index < op.inputs.len()) else { continue };
        let kind = mount.mount_type();
        if matches!(kind, pb::MountType::Secret | pb::MountType::Ssh | pb::MountType::Tmpfs) {
            continue;
        }
        let selector = if mount.selector.starts_with('/') { mount.selector.clone() } else { format!("/{}", mount.selector) };
        let off = mount.content_cache() == pb::MountContentCache::Off;
        let default_root = mount.dest == "/" && mount.content_cache() == pb::MountContentCache::Default;
        let safe = mount.output == SKIPPED || mount.readonly || selector == "/";
        let content = safe && !off && !default_root;
        let entry = copied.entry(index).or_insert_with(|| Some(Vec::new()));
        match entry {
            Some(selectors) if content => selectors.push(Selector::new(&spelled_text(&selector), true)),
            _ => *entry = None,
        }
    }
    (0..op.inputs.len())
        .map(|index| match copied.remove(&index).flatten() {
            Some(selectors) if !selectors.is_empty() => InputDependency::Content(selectors),
            _ => InputDependency::State,
        })
        .collect()
}

/// `pb.SkipOutput`: changes to the mount do not outlive the step.
const SKIPPED: i64 = -1;

fn of_file(op: &Op, file: &pb::FileOp) -> Vec<InputDependency> {
    let mut based = vec![false; op.inputs.len()];
    let mut copied: Vec<Vec<Selector>> = vec![Vec::new(); op.inputs.len()];
    let owner = |owner: &Option<pb::ChownOpt>, copied: &mut Vec<Vec<Selector>>| {
        let Some(owner) = owner else { return };
        for (who, path) in [(&owner.user, "/etc/passwd"), (&owner.group, "/etc/group")] {
            if let Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) }) = who
                && let Some(selectors) = usize::try_from(named.input).ok().and_then(|index| copied.get_mut(index))
            {
                selectors.push(Selector::new(path, true));
            }
        }
    };
    for action in &file.actions {
        if let Some(based) = usize::try_from(action.input).ok().and_then(|index| based.get_mut(index)) {
            *based = true;
        }
        match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => {
                owner(&copy.owner, &mut copied);
                if let Some(selectors) = usize::try_from(action.secondary_input).ok().and_then(|index| copied.get_mut(index)) {
                    selectors.push(of_copy(copy));
                }
            }
            Some(pb::file_action::Action::Mkdir(mkdir)) => owner(&mkdir.owner, &mut copied),
            Some(pb::file_action::Action::Mkfile(mkfile)) => owner(&mkfile.owner, &mut copied),
            _ => {}
        }
    }
    based
        .into_iter()
        .zip(copied)
        .map(
            |(based, selectors)| {
                if based || selectors.is_empty() { InputDependency::State } else { InputDependency::Content(selectors) }
            },
        )
        .collect()
}

fn of_copy(copy: &pb::FileActionCopy) -> Selector {
    let path = if copy.src.starts_with('/') { copy.src.clone() } else { format!("/{}", copy.src) };
    let spelled = |texts: &[String]| texts.iter().map(|text| spelled_text(text).into_owned()).collect();
    Selector {
        wildcard: copy.allow_wildcard && has_wildcards(&path),
        path: spelled_text(&path).into_owned(),
        follow: copy.follow_symlink,
        include: spelled(&copy.include_patterns),
        exclude: spelled(&copy.exclude_patterns),
        required: spelled(&copy.required_paths),
    }
}
