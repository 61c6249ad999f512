//! The sources of an operation's files.

use std::path::Path;

use super::doubt::AssemblyDoubt;
use super::layer::AssembledLayer;
use crate::build_context::Entry;

/// The files of a local source.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The directory that contains them.
    pub root: &'a Path,
    /// The entries that the file sync sends for the source, parents before their content ([`crate::build_context::walk`]).
    pub entries: &'a [Entry],
}

/// A source of a copy.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A local source: a build context.
    Files(Files<'a>),
    /// The result of an operation on an empty state: the files of a heredoc.
    Made(&'a AssembledLayer),
}

/// Returns nanoseconds as whole seconds.
///
/// # Errors
/// If the time is before 1970.
pub(super) fn seconds(nanoseconds: i64) -> Result<u64, AssemblyDoubt> {
    u64::try_from(nanoseconds.div_euclid(1_000_000_000))
        .map_err(|_| AssemblyDoubt::UnknownPaths("a modification time is before 1970".to_owned()))
}
