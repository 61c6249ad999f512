//! What the frontend made of a Dockerfile, and its complaints in the user's terms.

use crate::engine::buildkit::{Solved, pb};
use crate::error::Error;

/// The graph and the image's configuration.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The whole graph; for several platforms, that of the first.
    pub definition: pb::Definition,
    /// `containerimage.config`, as JSON.
    pub config: Vec<u8>,
}

impl Compiled {
    /// Takes both out of the frontend's answer.
    #[must_use]
    pub fn of(solved: &Solved) -> Self {
        let config = solved.metadata.get("containerimage.config").cloned().unwrap_or_default();
        Self { definition: solved.definition().cloned().unwrap_or_default(), config }
    }
}

/// The build's failure, in the daemon's words; our own where local files were the reason.
#[must_use]
pub fn compile_failure(status: &tonic::Status, local: Option<String>) -> Error {
    match local {
        Some(local) => Error::build(local),
        None => Error::build(status.message().to_owned()),
    }
}
