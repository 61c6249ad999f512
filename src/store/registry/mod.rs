//! A store in a repository of a registry: beside the images, so that each layer is there only once.
//!
//! Blobs are the registry's blobs. The small objects of a scope and image are in one artifact (see [`artifact`]), which a run reads
//! in two requests. What a run writes stays in memory until [`crate::store::ObjectStore::flush`], and then becomes visible to others at once.

mod artifact;
mod bundle;
#[cfg(test)]
mod error_tests;
mod fault;
mod object_source;
mod progress;
mod repository;
mod save;
mod store;

pub use repository::RegistryOptions;
pub use store::RegistryStore;
