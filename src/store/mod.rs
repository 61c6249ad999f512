//! Stores layers and records between runs: in S3, a directory, a registry, or memory.
//!
//! A store has whole objects under [`Name`]s and does not interpret them. Objects named by content are immutable, so that two runs
//! may write at once without a lock. [`Blobs`] verifies what it reads, whatever the store below.

mod blobs;
mod directory;
mod error;
#[cfg(test)]
mod error_tests;
mod interface;
mod memory;
mod name;
mod object;
mod pace;
mod paced;
mod registry;
mod s3;
mod small;
mod sums;

pub use blobs::Blobs;
pub use directory::DirectoryStore;
pub use error::{Error, Fault, Result};
pub use interface::{Entry, ObjectStore};
pub use memory::MemoryStore;
pub use name::{InvalidName, Name};
pub use object::Object;
pub use pace::{GIVEN_UP, Pace, Patience};
pub use paced::Paced;
pub use registry::{RegistryOptions, RegistryStore};
pub use s3::{Encryption, Rule, S3Store};
pub use small::{read_small, read_undamaged};
