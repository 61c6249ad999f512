//! BuildKit's graph (LLB) as a value: its steps, their inputs, and the part of it up to one step. Pure, no I/O.

mod cache_mounts;
mod canonical;
mod decode;
mod extract;
mod key;
mod local;
mod remote;
mod rewrite;
mod stages;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub use cache_mounts::{CacheMount, cache_mounts};
pub use canonical::{InputDependency, apart, input_dependencies, operation_key};
pub use decode::{Graph, Input, InvalidGraph, Op, Place};
pub use extract::mark;
pub use key::{CopySource, Facts, Key, Keys};
pub use local::local_source;
pub use remote::{Remote, ResolvedSource, pinned, pinned_revision, without_query};
pub use rewrite::{AddedMount, BaseSubstitution, RewrittenGraph, Substitution};
pub use stages::{Chain, Link, Stage, StageName, Step, instruction_of, stage_of};
pub use wire::Malformed;
