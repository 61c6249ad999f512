//! The reasons to plan a build again, and how each changes the plan.

use crate::build_context::Difference;
use crate::cache::record_reader::RecordReader;
use crate::domain::{Digest, Selector};
use crate::error::Result;
use crate::graph::Input;
use crate::planner::build_plan::{BuildPlan, LostLayers};
use crate::planner::lookup;

/// The reason to plan a build again.
#[derive(Debug)]
pub enum Replan {
    /// The cache cannot supply what its records name. hakobi has warned the user and does not use the cache any more.
    CacheUnusable,
    /// The cache has lost layers.
    LayersLost(LostLayers),
    /// A file of the build context changed after hakobi hashed it.
    SourcesMoved(Difference),
    /// A URL, a repository or an image has another version than before.
    RemotesMoved,
    /// A layer of a base image did not pass through the loopback endpoint, for this reason. The daemon must pull base images
    /// itself.
    BypassBaseProxy(String),
    /// The digests of files that steps copy out of stages and images. The daemon has made these by now.
    Observed(Vec<((Input, Vec<Selector>), Digest)>),
}

impl Replan {
    /// Returns the name of the reason for `--debug`.
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

/// Changes a plan by what hakobi found during its execution.
///
/// # Errors
/// If the cache fails and is required.
pub async fn replan(plan: &mut BuildPlan, why: Replan, records: &RecordReader<'_>) -> Result<()> {
    tracing::info!(why = why.name(), "planning again");
    match why {
        // The graph stays the same; whoever reads the changed files hashes them again.
        Replan::BypassBaseProxy(_) | Replan::SourcesMoved(_) => return Ok(()),
        Replan::CacheUnusable => {
            plan.without_records();
            return Ok(());
        }
        Replan::LayersLost(lost) => {
            records.note_lost_layers();
            plan.without_layers(lost);
        }
        Replan::RemotesMoved => plan.without_pins(),
        Replan::Observed(contents) => plan.facts.seen.extend(contents),
    }
    // While the cache had the result, hakobi did not look up the states below it.
    lookup::decide(plan, records).await
}

#[cfg(test)]
#[path = "replan_tests.rs"]
mod tests;
