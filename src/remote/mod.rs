//! Finds the current state of remote files and repositories, like BuildKit: files in `http`, repositories in `git`.

#[cfg(test)]
mod error_tests;
mod git;
mod http;

pub use git::commit;
pub use http::{Client, Found, Version};
