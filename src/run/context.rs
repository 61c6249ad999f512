//! What is asked for, and what there is to do it with whether there is a daemon or not.

use std::collections::BTreeMap;

use crate::build::{Input, Refusal, is_passing};
use crate::cache::opened::{BuildCache, OpenedCache};
use crate::domain::ImageRef;
use crate::event::Events;
use crate::registry::Registries;
use crate::settings::{BuildSettings, ContextSource, DockerfileSource, Settings, Strategy};

/// How often a solve is begun again when the network or a registry had a bad moment.
pub const ATTEMPTS: u32 = 3;

pub struct BuildContext<'a> {
    pub settings: &'a Settings,
    pub build: &'a BuildSettings,
    pub events: &'a Events,
    pub registries: Registries,
    /// What is pushed, or what the image is called in the daemon.
    pub tags: Vec<ImageRef>,
    /// The cache.
    pub cache: BuildCache<'a>,
}

impl<'a> BuildContext<'a> {
    /// Of a build, with its cache if it has one.
    #[must_use]
    pub fn new(
        settings: &'a Settings,
        build: &'a BuildSettings,
        events: &'a Events,
        registries: Registries,
        tags: Vec<ImageRef>,
        opened: Option<OpenedCache<'a>>,
    ) -> Self {
        let is_repeatable = build.context != ContextSource::Stdin || build.dockerfile == DockerfileSource::Stdin;
        Self { settings, build, events, registries, tags, cache: BuildCache { opened, is_repeatable } }
    }

    /// Whether a solve that failed is to be begun again; waits then, so that what was amiss may pass.
    pub async fn tries_again(&self, attempt: &mut u32, status: &Refusal) -> bool {
        // A solve that was cut off shares its steps with the next one for as long as BuildKit has not let go of it.
        let left_over = self.cache.is_left_over(status.message());
        // A stream that was read cannot be sent again.
        if *attempt >= ATTEMPTS || !(left_over || is_passing(status)) || !self.is_repeatable() {
            return false;
        }
        if !left_over {
            self.events.warning(format!("trying again ({attempt} of {}): {}", ATTEMPTS - 1, status.message()));
        }
        let pause = if left_over { *attempt } else { *attempt * 2 };
        tokio::time::sleep(std::time::Duration::from_secs(u64::from(pause))).await;
        *attempt += 1;
        true
    }

    /// Whether the image goes to registries and nowhere else.
    pub fn is_only_pushed(&self) -> bool {
        self.build.push && !self.build.load && self.build.outputs.is_empty()
    }

    pub fn is_repeatable(&self) -> bool {
        self.cache.is_repeatable
    }

    /// `--annotation`, for the manifest.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let pairs = self.build.annotations.iter().filter_map(|annotation| {
            let (name, value) = annotation.split_once('=')?;
            // `manifest:` and the like; on a single manifest the others mean nothing.
            let name = name.strip_prefix("manifest:").or_else(|| (!name.contains(':')).then_some(name))?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// Whether hakobi plans a build of these directories.
    pub fn plans(&self, input: &Input) -> bool {
        self.build.strategy == Strategy::Auto && self.cache.usable().is_some() && !input.directories.is_empty()
    }
}
