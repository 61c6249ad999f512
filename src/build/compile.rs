//! What the frontend made of a Dockerfile.

use crate::engine::buildkit::{Solved, pb};

/// The graph and the image's configuration.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The whole graph; for several platforms, that of the first.
    pub definition: pb::Definition,
    /// `containerimage.config`, as JSON.
    pub config: Vec<u8>,
    /// The engine whose answer it is.
    pub engine: String,
}

impl Compiled {
    /// Takes both out of the frontend's answer.
    #[must_use]
    pub fn of(solved: &Solved) -> Self {
        let config = solved.metadata.get("containerimage.config").cloned().unwrap_or_default();
        Self { definition: solved.definition().cloned().unwrap_or_default(), config, engine: String::new() }
    }
}
