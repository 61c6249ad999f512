//! Why a push failed: by where it goes, or by where its bytes come from.

use super::preflight::several;
use crate::domain::Repository;
use crate::error::Error;
use crate::registry::{self, Kind};

/// The side of a push that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A repository that is pushed to, or the push as a whole.
    Destination,
    /// What was to be pushed could not be read; from this repository, where it was to be copied from one. The destination is well.
    Source(Option<Repository>),
}

/// A push that failed.
#[derive(Debug)]
pub struct Failure {
    /// What the user is told if nothing else helps.
    pub error: Error,
    /// The side that failed. Where both did, the destination.
    pub side: Side,
}

impl Failure {
    /// One failure for those of several uploads, each with the repository that it was to be copied from; nothing of none.
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

    /// The repository that the bytes were to be copied from, where that is what failed.
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
