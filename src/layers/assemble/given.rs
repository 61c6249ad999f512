//! What an operation takes its files from.

use std::path::Path;

use super::doubt::AssemblyDoubt;
use super::layer::AssembledLayer;
use crate::build_context::Entry;

/// What a local source sends.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The directory they lie in.
    pub root: &'a Path,
    /// The entries that the file sync sends for it, parents before what is in them ([`crate::build_context::walk`]).
    pub entries: &'a [Entry],
}

/// What is copied from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A local source: a build context.
    Files(Files<'a>),
    /// What an operation on nothing made: the files of a heredoc.
    Made(&'a AssembledLayer),
}

/// Seconds, cut, of nanoseconds.
pub(super) fn seconds(nanoseconds: i64) -> Result<u64, AssemblyDoubt> {
    u64::try_from(nanoseconds.div_euclid(1_000_000_000))
        .map_err(|_| AssemblyDoubt::UnknownPaths("a modification time is before 1970".to_owned()))
}
