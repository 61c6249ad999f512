//! Makes the image of a plan. Writes no record.

pub mod append_base;
pub mod assemble;
pub mod assembled;
pub mod buildkit_only;
pub mod context_files;
pub mod daemon_cache;
pub mod graph_errors;
pub mod inspect;
pub mod load_images;
pub mod metadata_only;
pub mod partial;
pub mod pending;
pub mod progress;
pub mod request;
pub mod reuse;
pub mod rounds;
pub mod skeleton;
pub mod solve;
pub mod substitutions;
pub mod verify;
pub mod write_layer;
