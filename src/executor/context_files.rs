//! Reads the files of a build's contexts for the layers that hakobi assembles.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::build_context::{Difference, Entry, Held, NodeKind, Selection, Tree, WalkError, walk};
use crate::domain::Digest;
use crate::graph::{Graph, Op};
use crate::layers::PathIndex;
use crate::layers::assemble::{AssembledLayer, AssemblyDoubt, Files, Source, assemble_layer};
use crate::plan::selection;
use crate::planner::build_plan::BuildPlan;

/// The files of the build contexts, by the steps that name these contexts.
pub struct Contexts(HashMap<Digest, (PathBuf, Vec<Entry>)>);

impl Contexts {
    /// Reads the contexts that these steps copy from, and compares them with their hashed files. Returns `None` if one of them was
    /// not hashed.
    ///
    /// # Errors
    /// If a file changed after hakobi hashed it.
    pub async fn read(plan: &BuildPlan, steps: &[&Op]) -> std::result::Result<Option<Self>, Difference> {
        let mut contexts = HashMap::new();
        for input in steps.iter().flat_map(|op| &op.inputs) {
            let source = plan.graph.op(&input.step).filter(|op| !contexts.contains_key(&op.digest));
            let Some((op, (name, selection))) = source.and_then(|op| Some((op, selection(op)?))) else { continue };
            let Some(Ok(tree)) = plan.facts.locals.get(&op.digest) else { return Ok(None) };
            let Some(root) = plan.directories.get(&name).map(ToOwned::to_owned) else { return Ok(None) };
            let (from, tree) = (root.clone(), Arc::clone(tree));
            let walked = tokio::task::spawn_blocking(move || held(&from, &selection, tree)).await;
            let entries = walked.unwrap_or_else(|_| Err(Difference::at(&name, "it is no longer readable")))?;
            contexts.insert(op.digest.clone(), (root, entries));
        }
        Ok(Some(Self(contexts)))
    }

    /// Returns the contexts that these steps copy from, as they were hashed. Returns `None` if one of them was not hashed.
    pub fn hashed(plan: &BuildPlan, steps: &[&Op]) -> Option<Self> {
        let mut contexts = HashMap::new();
        for input in steps.iter().flat_map(|op| &op.inputs) {
            let source = plan.graph.op(&input.step).filter(|op| !contexts.contains_key(&op.digest));
            let Some((op, (name, _))) = source.and_then(|op| Some((op, selection(op)?))) else { continue };
            let tree = plan.facts.locals.get(&op.digest)?.as_ref().ok()?;
            let entries = tree.iter().map(|(path, node)| Entry::new(path, node)).collect();
            contexts.insert(op.digest.clone(), (plan.directories.get(&name)?.to_owned(), entries));
        }
        Some(Self(contexts))
    }

    /// Assembles the layer of a step on the paths of a state.
    ///
    /// # Errors
    /// If hakobi is not sure which layer the daemon would make.
    pub fn assemble_layer(
        &self,
        graph: &Graph,
        op: &Op,
        below: &PathIndex,
    ) -> std::result::Result<AssembledLayer, AssemblyDoubt> {
        let nothing = PathIndex::default();
        // BuildKit creates the files of heredocs on an empty state, and copies them from there.
        let mut made: BTreeMap<usize, AssembledLayer> = BTreeMap::new();
        for (place, input) in op.inputs.iter().enumerate() {
            if let Some(source) = graph.op(&input.step).filter(|op| op.inputs.is_empty() && op.files().is_some()) {
                made.insert(place, assemble_layer(&source.op, &nothing, &|_| None)?);
            }
        }
        assemble_layer(&op.op, below, &|place| {
            if let Some(made) = made.get(&place) {
                return Some(Source::Made(made));
            }
            let (root, entries) = self.0.get(&op.inputs.get(place)?.step)?;
            Some(Source::Files(Files { root, entries }))
        })
    }
}

/// Reads the entries of a directory and compares them with a tree.
///
/// # Errors
/// If an entry differs from the tree, or is not readable.
pub fn held(root: &Path, selection: &Selection, tree: Arc<Tree>) -> std::result::Result<Vec<Entry>, Difference> {
    let (mut entries, mut held, mut differs) = (Vec::new(), Held::against(tree), None);
    let walked = walk(root, selection, &mut |entry| {
        differs = held.entry(&entry).err();
        entries.push(entry);
        differs.is_none()
    });
    match (differs, walked) {
        (Some(difference), _) => Err(difference),
        // hakobi could read it when it hashed it.
        (None, Err(WalkError::Read { path, .. })) => Err(Difference::at(&path, "it is no longer readable")),
        (None, Err(error)) => Err(Difference::at(&error.to_string(), "it is no longer readable")),
        (None, Ok(())) => held.end().map(|()| entries),
    }
}

/// Returns the digest of an input's file that the step's key contains. Returns `None` if the path is no hashed file.
pub fn content(plan: &BuildPlan, op: &Op, source: usize, path: &str) -> Option<Digest> {
    let Some(Ok(tree)) = plan.facts.locals.get(&op.inputs.get(source)?.step) else { return None };
    match &tree.get(path)?.kind {
        NodeKind::File(content) => Some(content.clone()),
        _ => None,
    }
}
