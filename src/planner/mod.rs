//! Makes a plan of a build: compiles or recalls it, looks at its sources, and looks up its steps in the cache.

pub mod auto_mounts;
pub mod bases;
pub mod build_plan;
pub mod compile;
pub mod compiled_key;
pub mod hiding;
pub mod local_sources;
pub mod lookup;
pub mod lost_layers;
pub mod named_contexts;
pub mod plan;
pub mod recall;
pub mod remote_sources;
pub mod replan;
