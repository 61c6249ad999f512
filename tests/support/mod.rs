//! The shared code of the tests with real engines and registries. Each test crate uses only a part of it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod background;
pub mod build;
pub mod ecr_fake;
pub mod engine;
pub mod fault_proxy;
pub mod http_fake;
pub mod image;
pub mod installed;
pub mod machine;
pub mod parts;
pub mod plain;
pub mod s3;
pub mod small;
