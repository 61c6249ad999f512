//! The faults of a store, in such a way that a warning can name the cause.

use std::fmt;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store denies access: permissions, credentials.
    Denied,
    /// There is no such bucket or directory.
    Missing,
    /// No space is left.
    Full,
    /// The store is unreachable, broke off, or is temporarily unavailable.
    Unreachable,
    /// The bytes do not match the name.
    Damaged,
    /// The source of a write could not be read, or had other bytes. The store itself works.
    Source,
    /// Any other fault.
    Other,
}

/// A fault of a store.
#[derive(Debug, Clone)]
pub struct Error {
    fault: Fault,
    message: String,
    hint: Option<String>,
}

/// The result type of a store's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns a fault. Its message says what failed, and where.
    #[must_use]
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), hint: None }
    }

    /// Adds advice for the user.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns a fault of the file system: the failed operation and its path.
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

    /// Returns the kind of the fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Returns the advice for the user, or `None`.
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
