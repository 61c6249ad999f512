//! What goes wrong with a store, so that the warning can name the cause.

use std::fmt;

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store does not let us: permissions, credentials.
    Denied,
    /// There is no such bucket or directory.
    Missing,
    /// No space left.
    Full,
    /// It cannot be reached, broke off, or is not well for now.
    Unreachable,
    /// The bytes are not those that the name says.
    Damaged,
    /// What was to be written could not be read, or was something else. The store itself is well.
    Source,
    /// Anything else.
    Other,
}

/// A fault of a store.
#[derive(Debug, Clone)]
pub struct Error {
    fault: Fault,
    message: String,
    hint: Option<String>,
}

/// What functions of a store return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A fault, in words that say what was done where.
    #[must_use]
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), hint: None }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A fault of the file system: what was done, to what.
    #[must_use]
    pub fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let fault = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Fault::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Fault::Full,
            ErrorKind::NotFound | ErrorKind::NotADirectory => Fault::Missing,
            _ => Fault::Other,
        };
        Self::new(fault, format!("failed to {doing} {}: {error}", path.display()))
    }

    /// What kind of fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What to do about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
