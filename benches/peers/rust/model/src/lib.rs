//! What the service keeps; its kinds are modules of their own.

mod kinds;

pub use kinds::*;

/// Why an item is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("'{0}' is no name")]
    Name(String),
    #[error("{0} is over the limit of {1}")]
    Limit(u64, u64),
}
