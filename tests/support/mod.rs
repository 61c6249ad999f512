//! What the tests of the real parts share. Each test crate takes what it needs, so not all of it is used in every one.
#![allow(dead_code, missing_docs)]

pub mod engine;
pub mod machine;
pub mod parts;
