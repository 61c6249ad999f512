//! What the execution of a plan works with, and the two ways in which it ends early.

use crate::build_context::Difference;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::engine::buildkit::{Outputs, Session};
use crate::error::Error;
use crate::planner::replan::Replan;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;

/// What the execution of a plan works with.
pub struct Execution<'a> {
    pub daemon: &'a DaemonBuild<'a>,
    pub cache: &'a CacheSession,
    pub records: RecordReader<'a>,
    pub session: &'a Session,
    /// Where the daemon's outputs go.
    pub sinks: &'a Outputs,
    /// Caches that BuildKit reads itself (`--cache-from`).
    pub imports: &'a CacheImports,
}

/// Why an execution ended before there was an image.
#[derive(Debug)]
pub enum Halt {
    /// The build has failed.
    Failed(Error),
    /// The plan does not hold: a new one is to be made and executed.
    Replan(Replan),
}

/// What an execution gives, unless it ends early.
pub type OrHalt<T> = std::result::Result<T, Halt>;

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Replan> for Halt {
    fn from(why: Replan) -> Self {
        Self::Replan(why)
    }
}

/// The error of a build whose files changed while they were read.
#[must_use]
pub fn context_changed(difference: &Difference) -> Error {
    Error::build(format!("the build context changed while hakobi read it: {difference}"))
}
