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
    /// Takes both out of the frontend's answer. With `BUILDKIT_MULTI_PLATFORM` the configuration is called by its platform.
    #[must_use]
    pub fn of(solved: &Solved) -> Self {
        const CONFIG: &str = "containerimage.config";
        let of_platform = |name: &str| name.strip_prefix(CONFIG).is_some_and(|rest| rest.starts_with('/'));
        let config = solved.metadata.get(CONFIG).or_else(|| {
            let of_platforms = solved.metadata.iter().filter(|(name, _)| of_platform(name));
            of_platforms.min_by_key(|(name, _)| *name).map(|(_, config)| config)
        });
        let config = config.cloned().unwrap_or_default();
        Self { definition: solved.definition().cloned().unwrap_or_default(), config, engine: String::new() }
    }
}
