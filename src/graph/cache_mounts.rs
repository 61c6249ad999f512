//! The cache mounts of commands (`RUN --mount=type=cache`).

use std::collections::HashSet;

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
        let (mut reached, mut open) = (HashSet::new(), Vec::new());
        open.extend(commands.into_iter().filter_map(|command| self.op(command)).flat_map(|command| &command.inputs));
        while let Some(input) = open.pop() {
            if let Some(op) = self.op(&input.step).filter(|op| op.files().is_some())
                && reached.insert(&op.digest)
            {
                open.extend(&op.inputs);
            }
        }
        let mut copies = HashSet::new();
        let mut out = Vec::new();
        for op in self.in_order(reached) {
            let copies_or_rests = |input: &Input| copies.contains(&input.step) || self.op(&input.step).is_some_and(is_local);
            if op.inputs.iter().any(copies_or_rests) {
                copies.insert(&op.digest);
                out.push(op.digest.clone());
            }
        }
        out
    }
}

fn is_local(op: &Op) -> bool {
    matches!(&op.op.op, Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;

    /// Anybody may have written the graph of a record.
    #[test]
    fn copies_below_a_command_may_be_many() {
        let mut made = Made::default();
        let base = made.source("docker-image://base");
        let context = made.source("local://context");
        let (mut twice, mut long) = (made.copy(&base, &base, "/first"), made.copy(&base, &context, "/first"));
        for _ in 0..100 {
            twice = made.copy(&twice, &twice, "/again");
        }
        for number in 0..3000 {
            long = made.copy(&long, &base, &number.to_string());
        }
        let above = made.copy(&twice, &long, "/");
        let command = made.command(&above, "true");
        let graph = made.graph(&command);
        let copies = graph.copies_below([&command.step]);
        assert_eq!((copies.len(), copies.last()), (3002, Some(&above.step)));
    }
}
