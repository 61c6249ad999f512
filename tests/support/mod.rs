//! What the tests of the real parts share. Each test crate takes what it needs, so not all of it is used in every one.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod build;
pub mod ecr_fake;
pub mod engine;
pub mod http_fake;
pub mod image;
pub mod machine;
pub mod parts;
pub mod plain;
pub mod s3;
