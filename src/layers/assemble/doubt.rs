//! Why a layer cannot be worked out.

use crate::domain::shown;

/// Why there is no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyDoubt {
    /// What BuildKit would make cannot be told with certainty. The reason is for a person.
    #[error("{0}")]
    UnknownPaths(String),
    /// BuildKit refuses the operation, in its words as far as they are known.
    #[error("{0}")]
    Refused(String),
}

pub(super) fn unsure<T>(reason: impl Into<String>) -> Result<T, AssemblyDoubt> {
    Err(AssemblyDoubt::UnknownPaths(shown(&reason.into()).into_owned()))
}

pub(super) fn refused<T>(message: impl Into<String>) -> Result<T, AssemblyDoubt> {
    Err(AssemblyDoubt::Refused(shown(&message.into()).into_owned()))
}
