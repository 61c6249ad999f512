//! The faults of a registry as faults of a store.

use crate::registry::{self, Kind};
use crate::store::{Error, Fault};

/// Returns whether the registry says that there is no such thing.
pub fn is_absent(error: &registry::Error) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::RepositoryMissing)
}

/// Returns the store's fault for a registry's error.
pub fn fault(error: &registry::Error) -> Error {
    let fault = match error.kind {
        Kind::Unauthorized | Kind::Denied | Kind::Credentials | Kind::TagImmutable => Fault::Denied,
        Kind::RepositoryMissing | Kind::NotFound => Fault::Missing,
        Kind::Damaged | Kind::TooLarge => Fault::Damaged,
        Kind::Network | Kind::Tls | Kind::TooManyRequests | Kind::Unavailable => Fault::Unreachable,
        Kind::Source => Fault::Source,
        Kind::Refused | Kind::Local => Fault::Other,
    };
    let new = Error::new(fault, error.to_string());
    match error.hint() {
        Some(hint) => new.hint(hint),
        None => new,
    }
}
