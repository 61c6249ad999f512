//! Why an image cannot be read or written.

use std::io;

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::store;

/// The result of an operation on an image.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A blob of the image has other bytes than its digest says.
    #[error("blob {0} is damaged")]
    Damaged(Digest),
    /// The store lacks a blob of the image.
    #[error("blob {0} is missing")]
    Missing(Digest),
    /// A blob is not what the list says, although its digest is right.
    #[error("blob {0} is no part of a disk image: {1}")]
    Malformed(Digest, String),
    /// A chunk did not come in time.
    #[error("blob {0} did not come within {1} s")]
    Late(Digest, u64),
    /// The local copy cannot be read or written.
    #[error("the local copy of the disk image: {0}")]
    Local(#[from] io::Error),
    /// Outside of the image.
    #[error("bytes {0} to {1} are not in an image of {2} bytes")]
    Outside(u64, u64, u64),
}

impl Error {
    /// Returns the blob that is bad, if the saved image itself is, so that no later build can use it either.
    #[must_use]
    pub fn bad_blob(&self) -> Option<&Digest> {
        match self {
            Self::Damaged(blob) | Self::Missing(blob) | Self::Malformed(blob, _) => Some(blob),
            Self::Store(_) | Self::Late(..) | Self::Local(_) | Self::Outside(..) => None,
        }
    }
}

/// Why a daemon has lost its disk, or never had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct DiskLoss {
    /// The reason, in words.
    pub why: String,
    /// Whether the saved disk itself is bad or may be, so that it must be thrown away.
    pub is_damage: bool,
    /// The blob that is bad.
    pub blob: Option<Digest>,
}

impl DiskLoss {
    /// Returns a loss that says nothing of the saved disk.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_damage: false, blob: None }
    }

    /// Returns the same loss of a disk that may be bad.
    #[must_use]
    pub fn of_doubtful_disk(self) -> Self {
        Self { is_damage: true, ..self }
    }

    /// Returns the loss that an error has or stands for.
    #[must_use]
    pub fn of(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|error| Self::new(error.to_string()))
    }
}

impl From<Error> for DiskLoss {
    fn from(error: Error) -> Self {
        let blob = error.bad_blob().cloned();
        Self { why: error.to_string(), is_damage: blob.is_some(), blob }
    }
}

impl From<DiskLoss> for io::Error {
    fn from(loss: DiskLoss) -> Self {
        Self::other(loss)
    }
}
