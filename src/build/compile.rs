//! The frontend's result for a Dockerfile.

use std::collections::HashMap;

use serde::Deserialize;

use crate::domain::Platform;
use crate::engine::buildkit::{Solved, pb};

const CONFIG: &str = "containerimage.config";
const PLATFORMS: &str = "refs.platforms";

/// The graph and the image's configuration.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The whole graph. For several platforms, the graph of the first.
    pub definition: pb::Definition,
    /// `containerimage.config`, as JSON.
    pub config: Vec<u8>,
    /// The frontend's `refs.platforms`, as JSON, if the configuration does not name its platform. This is the case for a stage that
    /// a directory replaces (`--build-context STAGE=DIR`).
    pub platforms: Option<Vec<u8>>,
    /// The engine that gave the answer.
    pub engine: String,
}

/// BuildKit's `exptypes.Platforms`.
#[derive(Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms")]
    all: Vec<PlatformOf>,
}

#[derive(Deserialize)]
struct PlatformOf {
    #[serde(rename = "Platform")]
    platform: Platform,
}

impl Compiled {
    /// Reads both from the frontend's answer. With `BUILDKIT_MULTI_PLATFORM` the configuration's key contains its platform.
    #[must_use]
    pub fn new(solved: &Solved) -> Self {
        let of_platform = |name: &str| name.strip_prefix(CONFIG).is_some_and(|rest| rest.starts_with('/'));
        let config = solved.metadata.get(CONFIG).or_else(|| {
            let of_platforms = solved.metadata.iter().filter(|(name, _)| of_platform(name));
            of_platforms.min_by_key(|(name, _)| *name).map(|(_, config)| config)
        });
        let config = config.cloned().unwrap_or_default();
        let platforms = solved.metadata.get(PLATFORMS).filter(|_| named(&config).is_none()).cloned();
        Self { definition: solved.definition().cloned().unwrap_or_default(), config, platforms, engine: String::new() }
    }

    /// Returns the platform of the image. Returns `None` if the frontend did not state it.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        named(&self.config).or_else(|| {
            let Platforms { all } = serde_json::from_slice(self.platforms.as_ref()?).ok()?;
            all.into_iter().next().map(|one| one.platform)
        })
    }

    /// Returns the metadata that the exporter needs for a graph that replaces the frontend's.
    #[must_use]
    pub fn metadata(&self) -> HashMap<String, Vec<u8>> {
        let platforms = self.platforms.clone().map(|platforms| (PLATFORMS.to_owned(), platforms));
        [(CONFIG.to_owned(), self.config.clone())].into_iter().chain(platforms).collect()
    }
}

/// Returns the platform that a configuration names. Returns `None` if it names none.
fn named(config: &[u8]) -> Option<Platform> {
    serde_json::from_slice::<Platform>(config)
        .ok()
        .filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_without_a_platform_has_that_of_the_frontend() {
        let of = |config: &str| {
            let platforms = r#"{"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}"#;
            let metadata = [(CONFIG, config), (PLATFORMS, platforms)].map(|(name, text)| (name.to_owned(), text.into()));
            Compiled::new(&Solved { metadata: metadata.into(), ..Solved::default() })
        };
        let told = |compiled: &Compiled| compiled.platform().map(|platform| platform.to_string());
        let whole = of(r#"{"architecture":"amd64","os":"linux"}"#);
        assert_eq!((told(&whole).as_deref(), whole.metadata().len()), (Some("linux/amd64"), 1));
        for config in [r#"{"architecture":"","os":"linux"}"#, "{}"] {
            let bare = of(config);
            assert_eq!((told(&bare).as_deref(), bare.metadata().len()), (Some("linux/arm64"), 2), "{config}");
            assert_eq!(bare.config, config.as_bytes());
        }
    }
}
