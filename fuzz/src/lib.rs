//! The functions that the fuzzers call. tests/hostile.rs calls the same ones.

#[path = "../../tests/hostile/targets/mod.rs"]
pub mod targets;
