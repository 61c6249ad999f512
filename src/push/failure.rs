//! The failure of a push, with its side: the destination, or the source of the bytes.

use super::preflight::several;
use crate::domain::Repository;
use crate::error::Error;
use crate::registry::{self, Kind};

/// The side of a push that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A target repository, or the push as a whole.
    Destination,
    /// The source of the bytes, which was this repository if the blob was copied from one. The destination works.
    Source(Option<Repository>),
}

/// A failed push.
#[derive(Debug)]
pub struct Failure {
    /// The error for the user if a retry does not help.
    pub error: Error,
    /// The side that failed; the destination if both did.
    pub side: Side,
}

impl Failure {
    /// Combines the failures of several uploads, each with the repository that the blob was copied from. Returns `None` without
    /// failures.
    pub(super) fn from_all(failures: Vec<(registry::Error, Option<Repository>)>) -> Option<Self> {
        let source = |(error, from): &(registry::Error, Option<Repository>)| match error.kind {
            Kind::Source => Side::Source(from.clone()),
            _ => Side::Destination,
        };
        let sides: Vec<Side> = failures.iter().map(source).collect();
        let side = match sides.contains(&Side::Destination) {
            true => Side::Destination,
            false => sides.into_iter().next()?,
        };
        let error = several(failures.into_iter().map(|(error, _)| error).collect())?;
        Some(Self { error, side })
    }

    /// Returns the repository that the bytes were copied from, if that failed, or else `None`.
    #[must_use]
    pub fn source(&self) -> Option<&Repository> {
        match &self.side {
            Side::Source(from) => from.as_ref(),
            Side::Destination => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, side: Side::Destination }
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
