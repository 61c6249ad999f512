//! Why an image cannot be read or written.

use std::io;

use crate::domain::Digest;
use crate::store;

/// The result of an operation on an image.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer, or has a damaged blob.
    #[error(transparent)]
    Store(#[from] store::Error),
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
