//! The paths that open steps can touch in the state below them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::build_context::{NodeKind, Tree, clean, matches};
use crate::domain::{Digest, Selector, is_below, path_of, spelled_text};
use crate::engine::buildkit::pb;
use crate::graph::{Input, InputDependency, Op, input_dependencies};
use crate::layers::{ArchivePath, PathEntry, PathIndex, PendingCopy, UnknownPaths, archive_paths, reachable_paths};
use crate::plan::selection;
use crate::planner::build_plan::BuildPlan;

/// The trees of stages and images that hakobi has looked at.
pub type ObservedTrees = HashMap<(Input, Vec<Selector>), Tree>;

/// Returns the paths of a state that these steps can touch, one step after the other.
///
/// # Errors
/// The first step whose paths are not known.
pub fn touched_paths(
    plan: &BuildPlan,
    looked: &ObservedTrees,
    below: &PathIndex,
    steps: &[&Op],
) -> std::result::Result<BTreeMap<String, PathEntry>, NotAppended> {
    let mut copies: Vec<PendingCopy<'_>> = Vec::new();
    let mut paths = BTreeMap::new();
    for op in steps {
        let stays = |why: UnknownPaths| NotAppended::new(op, why.to_string());
        copies.extend(pending_copy(plan, looked, op).map_err(stays)?);
        paths = reachable_paths(below, &copies).map_err(stays)?;
    }
    Ok(paths)
}

/// Returns a file operation with the trees that it copies. Returns `None` for a merge, which touches no path.
///
/// # Errors
/// If the copied paths are not known.
pub fn pending_copy<'a>(
    plan: &'a BuildPlan,
    looked: &'a ObservedTrees,
    op: &'a Op,
) -> std::result::Result<Option<PendingCopy<'a>>, UnknownPaths> {
    let Some(operation) = op.files() else { return Ok(None) };
    let mut copied = Vec::new();
    for (input, used) in op.inputs.iter().zip(input_dependencies(op)) {
        let InputDependency::Content(selectors) = used else { continue };
        let tree: Option<&Tree> = match plan.facts.locals.get(&input.step) {
            Some(local) => local.as_ref().ok().map(|tree| &**tree),
            None => looked.get(&(input.clone(), selectors)),
        };
        copied.extend(tree);
    }
    let mut archives = Vec::new();
    for action in &operation.actions {
        if let Some(pb::file_action::Action::Copy(copy)) = &action.action
            && copy.attempt_unpack_docker_compatibility
        {
            archives.extend(unpacked(plan, op, action.secondary_input, copy)?);
        }
    }
    Ok(Some(PendingCopy { operation, copied, archive_paths: archives }))
}

/// Returns the paths of the archives that a copy may unpack.
///
/// # Errors
/// If the archive is not in the build context or not readable.
pub fn unpacked(
    plan: &BuildPlan,
    op: &Op,
    source: i64,
    copy: &pb::FileActionCopy,
) -> std::result::Result<Vec<ArchivePath>, UnknownPaths> {
    let unknown = || UnknownPaths("it may unpack an archive that is not in the build context".to_owned());
    let source = usize::try_from(source).ok().and_then(|source| op.inputs.get(source)).ok_or_else(unknown)?;
    let (name, _) = plan.graph.op(&source.step).and_then(selection).ok_or_else(unknown)?;
    let root = plan.directories.get(&name).ok_or_else(unknown)?;
    let Some(Ok(tree)) = plan.facts.locals.get(&source.step) else { return Err(unknown()) };
    let pattern = clean(&format!("/{}", spelled_text(&copy.src)));
    let pattern = &pattern[1..];
    let named = |path: &str| path == pattern || matches(pattern, path) == Some(true);
    // A link may lead to any of the files.
    let by_link =
        tree.iter().any(|(path, node)| matches!(node.kind, NodeKind::Link(_)) && (named(&path) || is_below(pattern, &path)));
    let mut out = Vec::new();
    for (path, node) in tree.iter() {
        if let NodeKind::File(keyed) = &node.kind
            && (by_link || named(&path))
        {
            out.extend(archive_paths(&root.join(path_of(&path)), &path, keyed)?);
        }
    }
    Ok(out)
}

/// A step that hakobi cannot append, and the reason.
pub struct NotAppended {
    /// The step.
    pub step: Digest,
    pub instruction: String,
    /// The reason, as text for the user.
    pub why: String,
}

impl NotAppended {
    pub fn new(op: &Op, why: String) -> Self {
        Self { step: op.digest.clone(), instruction: crate::graph::instruction_of(&op.name).to_owned(), why }
    }
}

impl fmt::Display for NotAppended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.instruction, self.why)
    }
}
