//! The facts that keys are computed from.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;

use super::record::{PathRecord, RemoteRecord};
use super::record_key::RecordKey;
use crate::build_context::{Selection, Tree};
use crate::domain::{ChainId, CopiedContentKey, DiffId, Digest, Selector, spelled_text};
use crate::graph::{CopySource, Facts, Input, Op, ResolvedSource};

/// Known facts. Sources have the digests of their steps.
#[derive(Debug, Clone, Default)]
pub struct KnownFacts {
    /// The diff IDs of base images' layers, or why they are not known.
    pub images: HashMap<Digest, Result<Vec<DiffId>, String>>,
    /// The files of local sources, or why they cannot be read.
    pub locals: HashMap<Digest, Result<Arc<Tree>, String>>,
    /// The versions of remote sources, or why they are not known.
    pub remotes: HashMap<Digest, Result<ResolvedSource, String>>,
    /// New records of servers' files.
    pub asked: Vec<(RecordKey<RemoteRecord>, RemoteRecord)>,
    /// Whether base images have files at a path, by the image's step and the path.
    pub paths: HashMap<(Digest, String), bool>,
    /// New records of these.
    pub looked: Vec<(RecordKey<PathRecord>, PathRecord)>,
    /// The content of files that steps copied out of stages in earlier runs.
    pub copied: HashMap<CopiedContentKey, Digest>,
    /// The content of files that steps copy out of states in this run.
    pub seen: Seen,
}

/// Content that hakobi looked at in this run, by the state and the selected paths.
pub type Seen = HashMap<(Input, Vec<Selector>), Digest>;

impl Facts for KnownFacts {
    fn image(&self, source: &Op) -> Result<Option<ChainId>, String> {
        match self.images.get(&source.digest) {
            Some(Ok(layers)) => Ok(ChainId::of_layers(layers)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("hakobi did not look up the base image".to_owned()),
        }
    }

    fn local(&self, source: &Op, selectors: &[Selector]) -> Result<Digest, String> {
        match self.locals.get(&source.digest) {
            Some(Ok(tree)) => tree.digest(selectors).map_err(|error| error.to_string()),
            Some(Err(why)) => Err(why.clone()),
            None => Err("hakobi did not read the directory".to_owned()),
        }
    }

    fn remote(&self, source: &Op) -> Result<ResolvedSource, String> {
        match self.remotes.get(&source.digest) {
            Some(holds) => holds.clone(),
            None => Err("hakobi did not look it up".to_owned()),
        }
    }

    fn copied_content(&self, copied: &CopySource) -> Option<Digest> {
        let seen = self.seen.get(&copied.place());
        seen.or_else(|| self.copied.get(copied.key.as_ref()?)).cloned()
    }
}

/// Returns the name of a local source, and which files of the directory it selects. Returns `None` if the step is no local source,
/// or has attributes that hakobi does not know (BuildKit `solver/pb/attr.go`).
#[must_use]
pub fn selection(op: &Op) -> Option<(String, Selection)> {
    let Some(pb::op::Op::Source(source)) = &op.op.op else { return None };
    let name = source.identifier.strip_prefix("local://")?;
    let list = |key: &str| match source.attrs.get(key) {
        Some(json) => {
            let texts = serde_json::from_str::<Vec<String>>(json).ok()?;
            Some(texts.iter().map(|text| spelled_text(text).into_owned()).collect())
        }
        None => Some(Vec::new()),
    };
    let selection = Selection {
        include: list("local.includepattern")?,
        exclude: list("local.excludepatterns")?,
        follow: list("local.followpaths")?,
    };
    Some((name.to_owned(), selection))
}
