//! Layers of files alone, made without what they lie on.
//!
//! A base never comes down to have a few files laid on it: `index` knows which paths are there, and that is all that file operations
//! can meet. `assemble` works out what layer such an operation makes. `reachable_paths` says what given operations can meet, with `routes` for links and `archive_paths` for archives; `skeleton` makes a layer of
//! that, on which the daemon's own copier works.

mod archive_paths;
pub mod assemble;
mod index;
mod reachable_paths;
mod routes;
mod rows;
mod skeleton;

pub use archive_paths::{ArchivePath, archive_paths};
pub use index::{Kind, LayerIndex, PathEntry, PathIndex, joined};
pub use reachable_paths::{PendingCopy, UnknownPaths, reachable_paths};
pub use skeleton::skeleton;
