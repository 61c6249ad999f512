//! BuildKit's graph (LLB) as a value: its steps, what they need, and the part of it up to one step. Pure, no I/O.

mod canonical;
mod decode;
mod extract;
mod graft;
mod key;
mod remote;
mod stages;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub use canonical::{Use, apart, shape, uses};
pub use decode::{Graph, Input, InvalidGraph, Op, Place};
pub use extract::mark;
pub use graft::{Graft, Grafted, Ground};
pub use key::{Facts, Key, Keys, Taken};
pub use remote::{Holds, Remote, pinned, settled, without_query};
pub use stages::{Chain, Link, Stage, StageName, Step, instruction_of, stage_of};
pub use wire::Malformed;
