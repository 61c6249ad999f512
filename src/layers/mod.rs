//! Makes layers of file operations without the files of the state below.
//!
//! The daemon need not pull a base image for a few added files: `index` knows its paths, and file operations can touch nothing
//! else. `assemble` makes the layer of such an operation. `reachable_paths` finds the paths that operations can touch, with
//! `routes` for links and `archive_paths` for archives. `skeleton` makes a layer of these paths, on which the daemon's own copier
//! works.

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
