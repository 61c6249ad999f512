//! Layers of files alone, made without what they lie on.
//!
//! A base never comes down to have a few files laid on it: `index` knows which paths are there, and that is all that file operations
//! can meet. `assemble` works out what layer such an operation makes. `reachable_paths` says what given operations can meet, with `routes` for links and `archive_paths` for archives; `skeleton` makes a layer of
//! that, on which the daemon's own copier works.

mod archive_paths;
pub mod assemble;
mod entry;
mod index;
mod layer_index;
mod paths;
mod reachable_paths;
mod routes;
mod skeleton;

pub use archive_paths::{ArchivePath, archive_paths};
pub use entry::{Kind, PathEntry};
pub use index::PathIndex;
pub use layer_index::LayerIndex;
pub use paths::joined;
pub use reachable_paths::{PendingCopy, reachable_paths};
pub use routes::UnknownPaths;
pub use skeleton::skeleton;
