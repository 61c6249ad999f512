//! What layers of files are held against: hakobi works out which layer the keyed files make, and a layer of the daemon's that is another
//! one is not remembered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::planning::Planned;
use super::recording::{Proved, Recording};
use crate::append::assemble::{Files, Laid, Laying, Source, lay};
use crate::append::{LayerIndex, PathIndex};
use crate::context::{Difference, Entry, Held, NodeKind, Selection, Tree, WalkError, walk};
use crate::domain::{DiffId, Digest, Selector, StepKey};
use crate::engine::StoreKind;
use crate::error::Result;
use crate::graph::{Graph, Input, Op, shape};
use crate::handover::Composed;
use crate::plan::{Allowed, allowed, missing, selection, stray};

/// The files that a build's contexts send, by the steps that stand for these.
pub(super) struct Contexts(HashMap<Digest, (PathBuf, Vec<Entry>)>);

impl Contexts {
    /// Those that these steps take from, as they are now, if that is what they were when they were hashed; nothing where one of them
    /// was not.
    ///
    /// # Errors
    /// If they are not what they were.
    pub(super) async fn read(planned: &Planned, steps: &[&Op]) -> std::result::Result<Option<Self>, Difference> {
        let mut contexts = HashMap::new();
        for input in steps.iter().flat_map(|op| &op.inputs) {
            let source = planned.graph.op(&input.step).filter(|op| !contexts.contains_key(&op.digest));
            let Some((op, (name, selection))) = source.and_then(|op| Some((op, selection(op)?))) else { continue };
            let Some(Ok(tree)) = planned.facts.locals.get(&op.digest) else { return Ok(None) };
            let Some(root) = planned.directories.get(&name).map(ToOwned::to_owned) else { return Ok(None) };
            let (from, tree) = (root.clone(), Arc::clone(tree));
            let walked = tokio::task::spawn_blocking(move || held(&from, &selection, tree)).await;
            let entries = walked.unwrap_or_else(|_| Err(Difference::at(&name, "it can no longer be read")))?;
            contexts.insert(op.digest.clone(), (root, entries));
        }
        Ok(Some(Self(contexts)))
    }

    /// Those that these steps take from, as they were hashed; nothing where one of them was not.
    pub(super) fn hashed(planned: &Planned, steps: &[&Op]) -> Option<Self> {
        let mut contexts = HashMap::new();
        for input in steps.iter().flat_map(|op| &op.inputs) {
            let source = planned.graph.op(&input.step).filter(|op| !contexts.contains_key(&op.digest));
            let Some((op, (name, _))) = source.and_then(|op| Some((op, selection(op)?))) else { continue };
            let tree = planned.facts.locals.get(&op.digest)?.as_ref().ok()?;
            let entries = tree.iter().map(|(path, node)| Entry::of(path, node)).collect();
            contexts.insert(op.digest.clone(), (planned.directories.get(&name)?.to_owned(), entries));
        }
        Some(Self(contexts))
    }

    /// The layer of a step on a state.
    pub(super) fn lay(&self, graph: &Graph, op: &Op, below: &PathIndex) -> std::result::Result<Laid, Laying> {
        let nothing = PathIndex::default();
        // The files of heredocs are made on nothing, and copied from there.
        let mut made: BTreeMap<usize, Laid> = BTreeMap::new();
        for (place, input) in op.inputs.iter().enumerate() {
            if let Some(source) = graph.op(&input.step).filter(|op| op.inputs.is_empty() && op.files().is_some()) {
                made.insert(place, lay(&source.op, &nothing, &|_| None)?);
            }
        }
        lay(&op.op, below, &|place| {
            if let Some(made) = made.get(&place) {
                return Some(Source::Made(made));
            }
            let (root, entries) = self.0.get(&op.inputs.get(place)?.step)?;
            Some(Source::Files(Files { root, entries }))
        })
    }
}

/// The entries of a directory, if they are those of a tree.
fn held(root: &Path, selection: &Selection, tree: Arc<Tree>) -> std::result::Result<Vec<Entry>, Difference> {
    let (mut entries, mut held, mut differs) = (Vec::new(), Held::against(tree), None);
    let walked = walk(root, selection, &mut |entry| {
        differs = held.entry(&entry).err();
        entries.push(entry);
        differs.is_none()
    });
    match (differs, walked) {
        (Some(difference), _) => Err(difference),
        // It could be read when it was hashed.
        (None, Err(WalkError::Read { path, .. })) => Err(Difference::at(&path, "it can no longer be read")),
        (None, Err(error)) => Err(Difference::at(&error.to_string(), "it can no longer be read")),
        (None, Ok(())) => held.end().map(|()| entries),
    }
}

/// The digest that a file of an input was keyed by.
pub(super) fn content(planned: &Planned, op: &Op, source: usize, path: &str) -> Option<Digest> {
    let Some(Ok(tree)) = planned.facts.locals.get(&op.inputs.get(source)?.step) else { return None };
    match &tree.get(path)?.kind {
        NodeKind::File(content) => Some(content.clone()),
        _ => None,
    }
}

/// What came of holding a layer against the files that its step was keyed by.
pub(super) enum Compared {
    /// It is the layer that was worked out: such a step can do without a daemon.
    Same(Option<StepKey>),
    /// Nothing was found that is wrong, as far as it can be told.
    Unknown,
    /// A path is not what the files make of it.
    Other(String),
}

/// A layer of an image, and the step that made it.
pub(super) struct Made<'a> {
    pub(super) op: &'a Op,
    pub(super) image: &'a Composed,
    /// The number of the layer.
    pub(super) place: usize,
    /// What it lies on, where that is known.
    pub(super) below: Option<&'a PathIndex>,
}

impl Recording<'_> {
    /// Holds a layer that the daemon made of files against what hakobi would have made.
    pub(super) async fn compared(
        &self,
        made: Made<'_>,
        contexts: Option<&Contexts>,
        indexes: &HashMap<DiffId, LayerIndex>,
        proved: &Proved<'_>,
    ) -> Result<Compared> {
        let (graph, op) = (&self.planned.graph, made.op);
        if op.files().is_none() {
            return Ok(Compared::Unknown);
        }
        let Some(layer) = self.tree(&made.image.layers[made.place], proved).await? else { return Ok(Compared::Unknown) };
        let laid = contexts.zip(made.below).map(|(contexts, below)| contexts.lay(graph, op, below));
        let Some(Ok(laid)) = laid else { return Ok(self.compared_roughly(op, &layer, proved)) };
        let content = |source: usize, path: &str| content(self.planned, op, source, path);
        if let Some(what) = laid.differs(&layer, &content) {
            return Ok(Compared::Other(what));
        }
        for path in laid.left_out(&layer) {
            let lower = made.image.diff_ids[..made.place].iter().zip(&made.image.layers).rev();
            let mut lower =
                lower.filter(|(diff_id, _)| indexes.get(diff_id).is_some_and(|index| index.entries.contains_key(path)));
            let there = match lower.next() {
                Some((_, blob)) => self.tree(blob, proved).await?.and_then(|tree| tree.get(path).cloned()),
                None => None,
            };
            match there.map(|node| laid.differs_at(path, &node, &content)) {
                Some(None) => {}
                Some(Some(what)) => return Ok(Compared::Other(format!("{path}: {what} (it kept what the layers below have)"))),
                None => return Ok(Compared::Other(format!("{path}: not in the daemon's layer"))),
            }
        }
        Ok(Compared::Same(shape(graph, op)))
    }

    /// Holds a layer against the contents that it may have, where it is not certain where they go.
    fn compared_roughly(&self, op: &Op, layer: &Tree, proved: &Proved<'_>) -> Compared {
        let of = |input: &Input, selectors: &[Selector]| match self.planned.facts.locals.get(&input.step) {
            Some(local) => local.as_ref().ok().map(|tree| &**tree),
            None => proved.course.trees.get(&(input.clone(), selectors.to_vec())),
        };
        let allowed = allowed(&self.planned.graph, op, of);
        if allowed == Allowed::Anything {
            return Compared::Unknown;
        }
        if let Some(path) = stray(layer, &allowed) {
            return Compared::Other(format!("{path}: its content"));
        }
        // Only the containerd store leaves out of a layer what it takes to be the same below, by size and time.
        let leaves_out = self.run.info.store == StoreKind::Containerd;
        match missing(layer, &allowed).filter(|_| leaves_out) {
            Some(path) => Compared::Other(format!("{path}: not in the daemon's layer")),
            None => Compared::Unknown,
        }
    }
}
