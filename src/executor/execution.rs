//! The inputs of an execution, and the two ways in which it ends early.

use crate::build_context::Difference;
use crate::cache::record_reader::RecordReader;
use crate::cache::session::CacheSession;
use crate::engine::buildkit::{Outputs, Session};
use crate::error::Error;
use crate::planner::replan::Replan;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;

/// The inputs of an execution.
pub struct Execution<'a> {
    pub daemon: &'a DaemonBuild<'a>,
    pub cache: &'a CacheSession,
    pub records: RecordReader<'a>,
    pub session: &'a Session,
    /// The destinations of the daemon's outputs.
    pub sinks: &'a Outputs,
    /// Caches that BuildKit reads itself (`--cache-from`).
    pub imports: &'a CacheImports,
}

/// The reason why an execution ended before it made an image.
#[derive(Debug)]
pub enum Halt {
    /// The build failed.
    Failed(Error),
    /// The plan does not hold: hakobi must plan and execute again.
    Replan(Replan),
}

/// The result of an execution, unless it ends early.
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

/// Returns the error of a build whose files changed while hakobi read them.
#[must_use]
pub fn context_changed(difference: &Difference) -> Error {
    Error::build(format!("the build context changed while hakobi read it: {difference}"))
}
