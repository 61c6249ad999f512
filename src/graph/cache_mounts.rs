//! The cache mounts of commands (`RUN --mount=type=cache`).

use bollard_buildkit_proto::pb;

use super::decode::{Graph, Input, Op};
use crate::domain::Digest;

/// A cache mount of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheMount {
    /// The ID, as it stands in the graph: the frontend adds a namespace and a slash.
    pub id: String,
    /// Where the command sees it.
    pub target: String,
    /// The rule for steps that use it at the same time (`pb.CacheSharingOpt`).
    pub sharing: i32,
    /// The state that it begins with, for `from=` or for an owner or mode. BuildKit makes another mount for another state.
    pub base: Option<Input>,
    /// The directory of the mount that the command sees.
    pub selector: String,
}

impl CacheMount {
    /// Returns whether the mount begins empty: it has no base, or one in which the frontend only made the directory.
    #[must_use]
    pub fn begins_empty(&self, graph: &Graph) -> bool {
        let Some(base) = &self.base else { return true };
        let makes_directory = |action: &pb::FileAction| matches!(action.action, Some(pb::file_action::Action::Mkdir(_)));
        let made = graph.op(&base.step).filter(|op| op.inputs.is_empty()).and_then(Op::files);
        made.is_some_and(|files| files.actions.len() == 1 && files.actions.iter().all(makes_directory))
    }
}

/// Returns the cache mounts that a step may write to. There are none if the step is no command.
#[must_use]
pub fn cache_mounts(op: &Op) -> Vec<CacheMount> {
    let Some(pb::op::Op::Exec(exec)) = &op.op.op else { return Vec::new() };
    let caches = exec.mounts.iter().filter(|mount| mount.mount_type() == pb::MountType::Cache && !mount.readonly);
    let caches = caches.filter_map(|mount| {
        let options = mount.cache_opt.as_ref()?;
        let base = usize::try_from(mount.input).ok().map(|place| op.inputs.get(place).cloned());
        Some(CacheMount {
            id: options.id.clone(),
            target: mount.dest.clone(),
            sharing: options.sharing,
            // An input that does not exist: another graph than hakobi knows.
            base: match base {
                Some(base) => Some(base?),
                None => None,
            },
            selector: mount.selector.clone(),
        })
    });
    caches.collect()
}

impl Graph {
    /// Returns the file operations directly below these commands: those with no other command between, that copy files of the build's
    /// own directories, and all that rest on these.
    #[must_use]
    pub fn copies_below<'a>(&self, commands: impl IntoIterator<Item = &'a Digest>) -> Vec<Digest> {
        let mut out = Vec::new();
        for command in commands {
            for input in self.op(command).map(|op| &*op.inputs).unwrap_or_default() {
                self.copies_to(&input.step, &mut out);
            }
        }
        out
    }

    /// Adds the file operations of a state that copy local files, or rest on such an operation. Returns whether there is any.
    fn copies_to(&self, step: &Digest, out: &mut Vec<Digest>) -> bool {
        if out.contains(step) {
            return true;
        }
        let Some(op) = self.op(step).filter(|op| op.files().is_some()) else { return false };
        let inputs: Vec<Input> = op.inputs.clone();
        let copies = inputs.iter().filter(|input| self.op(&input.step).is_some_and(is_local)).count() > 0;
        // All inputs, not only up to the first one that copies.
        let rests = inputs.iter().filter(|input| self.copies_to(&input.step, out)).count() > 0;
        if copies || rests {
            out.push(step.clone());
        }
        copies || rests
    }
}

fn is_local(op: &Op) -> bool {
    matches!(&op.op.op, Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://"))
}
