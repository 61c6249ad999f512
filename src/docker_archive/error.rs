//! Errors of archives, by their origin.

use std::io;

/// The reason why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading the bytes failed: the file, the pipe, or the compression around the archive.
    #[error("failed to read the archive: {0}")]
    Read(#[source] io::Error),
    /// The bytes are no archive of images, are damaged, or do not match the archive's own records.
    #[error("{0}")]
    Malformed(String),
    /// A layer could not be stored.
    #[error("failed to write the layer {path} of the archive: {error}")]
    Keep {
        /// The entry's name in the archive.
        path: String,
        /// The cause.
        #[source]
        error: io::Error,
    },
}

/// The result of this room's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed(message.into())
    }
}
