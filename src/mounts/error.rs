//! Why a mount could not be saved or brought in.

use crate::domain::Digest;
use crate::store;

/// An error of a mount's content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store lacks a blob of the mount.
    #[error("blob {0} of the cache mount is missing")]
    Missing(Digest),
    /// A blob of the mount is not what its digest or the list of files says.
    #[error("blob {blob} of the cache mount is damaged: {why}")]
    Damaged {
        /// The blob.
        blob: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// The listing of the mount cannot be saved.
    #[error("failed to save the cache mount: {0}")]
    Unfit(String),
    /// The other side of the content, such as the process in the container, failed.
    #[error("failed to move the content of the cache mount: {0}")]
    Content(#[from] std::io::Error),
}

/// The result of functions of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns an error about a blob.
    pub(super) fn damaged(blob: &Digest, why: impl ToString) -> Self {
        Self::Damaged { blob: blob.clone(), why: why.to_string() }
    }
}
