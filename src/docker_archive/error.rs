//! What goes wrong with an archive, told apart by whose fault it is.

use std::io;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bytes do not come: the file, the pipe, or the compression around the archive.
    #[error("failed to read the archive: {0}")]
    Read(#[source] io::Error),
    /// What came is no archive of images, damaged, or not what its own records say.
    #[error("{0}")]
    Malformed(String),
    /// Whoever keeps the layers could not keep one.
    #[error("failed to write the layer {path} of the archive: {error}")]
    Keep {
        /// The entry's name in the archive.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// What functions of this room return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed(message.into())
    }
}
