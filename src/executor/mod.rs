//! Makes the image of a plan. Writes no record.

pub mod append_base;
pub mod assemble;
pub mod buildkit_only;
pub mod context_files;
pub mod daemon_cache;
pub mod execution;
pub mod graph_errors;
pub mod inspect;
pub mod load_images;
pub mod metadata_only;
pub mod outcome;
pub mod partial;
pub mod pending;
pub mod progress;
pub mod request;
pub mod reuse;
pub mod rounds;
pub mod run;
pub mod skeleton;
pub mod solve;
pub mod substitutions;
pub mod verify;
pub mod write_layer;
