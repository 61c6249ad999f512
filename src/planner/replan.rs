//! Why a build is planned again, and how its plan changes by that.

use crate::build_context::Difference;
use crate::cache::record_reader::RecordReader;
use crate::domain::{Digest, Selector};
use crate::error::Result;
use crate::graph::Input;
use crate::planner::build_plan::{BuildPlan, LostLayers};
use crate::planner::lookup;

/// Why a build is planned again.
#[derive(Debug)]
pub enum Replan {
    /// The cache cannot give what its records say. The user was warned, and nothing of it is used any more.
    CacheUnusable,
    /// The cache has lost layers.
    LayersLost(LostLayers),
    /// A file of the build context is not what it was when it was hashed.
    SourcesMoved(Difference),
    /// A URL, a repository or an image gave something else than before.
    RemotesMoved,
    /// A layer of a base image did not come through the loopback endpoint, for this reason: the daemon is to pull base images itself.
    BypassBaseProxy(String),
    /// The files that steps copy out of stages and images, which the daemon has made by now, and their digests.
    Observed(Vec<((Input, Vec<Selector>), Digest)>),
}

impl Replan {
    /// What `--debug` calls it.
    fn name(&self) -> &'static str {
        match self {
            Self::CacheUnusable => "the cache cannot be used",
            Self::LayersLost(_) => "the cache lost layers",
            Self::SourcesMoved(_) => "the build context changed",
            Self::RemotesMoved => "a remote source changed",
            Self::BypassBaseProxy(_) => "the daemon is to pull base images itself",
            Self::Observed(_) => "the content of copied files is known now",
        }
    }
}

/// Changes a plan by what was found out while it was executed.
///
/// # Errors
/// If the cache fails and is required.
pub async fn replan(plan: &mut BuildPlan, why: Replan, records: &RecordReader<'_>) -> Result<()> {
    tracing::info!(why = why.name(), "planning again");
    match why {
        // The graph is the same; files that moved are hashed again by who reads them.
        Replan::BypassBaseProxy(_) | Replan::SourcesMoved(_) => return Ok(()),
        Replan::CacheUnusable => {
            plan.without_records();
            return Ok(());
        }
        Replan::LayersLost(lost) => plan.without_layers(lost),
        Replan::RemotesMoved => plan.without_pins(),
        Replan::Observed(contents) => plan.facts.seen.extend(contents),
    }
    // While the result was in the cache, nothing below it was asked for.
    lookup::decide(plan, records).await
}

#[cfg(test)]
#[path = "replan_tests.rs"]
mod tests;
