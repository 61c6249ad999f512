//! What the solves of a planned build have in common.

use crate::engine::buildkit::{Outputs, Session};
use crate::run::imports::CacheImports;

/// What a planned build works with.
pub struct Work<'a> {
    pub session: &'a Session,
    pub sinks: &'a Outputs,
    pub imports: &'a CacheImports,
}
