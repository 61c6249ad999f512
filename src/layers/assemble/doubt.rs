//! The reasons why hakobi cannot assemble a layer.

use crate::domain::shown;

/// Why there is no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyDoubt {
    /// The result of BuildKit is not certain. The reason is for the user.
    #[error("{0}")]
    UnknownPaths(String),
    /// BuildKit refuses the operation, with this message as far as it is known.
    #[error("{0}")]
    Refused(String),
}

pub(super) fn unsure<T>(reason: impl Into<String>) -> Result<T, AssemblyDoubt> {
    Err(AssemblyDoubt::UnknownPaths(shown(&reason.into()).into_owned()))
}

pub(super) fn refused<T>(message: impl Into<String>) -> Result<T, AssemblyDoubt> {
    Err(AssemblyDoubt::Refused(shown(&message.into()).into_owned()))
}
