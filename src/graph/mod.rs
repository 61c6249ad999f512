//! BuildKit's graph (LLB) as a value: its steps, what they need, and the part of it up to one step. Pure, no I/O.

mod decode;
mod stages;

pub use decode::{Graph, Input, InvalidGraph, Op, Place};
pub use stages::{Stage, StageName, Step, stage_of};
