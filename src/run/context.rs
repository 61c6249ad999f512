//! The settings of a build, with all that it needs besides a daemon.

use std::collections::BTreeMap;

use crate::build::{Input, Refusal, is_passing};
use crate::cache::opened::{BuildCache, OpenedCache};
use crate::domain::ImageRef;
use crate::event::Events;
use crate::registry::Registries;
use crate::settings::{BuildSettings, ContextSource, DockerfileSource, Settings, Strategy};

/// How often hakobi tries a solve if the network or a registry has a temporary fault.
pub const ATTEMPTS: u32 = 3;

pub struct BuildContext<'a> {
    pub settings: &'a Settings,
    pub build: &'a BuildSettings,
    pub events: &'a Events,
    pub registries: Registries,
    /// The tags to push, or the image's names in the daemon.
    pub tags: Vec<ImageRef>,
    /// The cache.
    pub cache: BuildCache<'a>,
}

impl<'a> BuildContext<'a> {
    /// Returns the context of a build, with its cache if it has one.
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

    /// Returns whether hakobi must try a failed solve again. Waits before that, so that the fault may pass.
    pub async fn tries_again(&self, attempt: &mut u32, status: &Refusal) -> bool {
        // A solve that was cut off shares its steps with the next solve, until BuildKit has released it.
        let left_over = self.cache.is_left_over(status.message());
        // hakobi cannot send a context from stdin twice.
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

    /// Returns whether the image goes to registries and nowhere else.
    pub fn is_only_pushed(&self) -> bool {
        self.build.push && !self.build.load && self.build.outputs.is_empty()
    }

    pub fn is_repeatable(&self) -> bool {
        self.cache.is_repeatable
    }

    /// Returns the annotations for the manifest (`--annotation`).
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let pairs = self.build.annotations.iter().filter_map(|annotation| {
            let (name, value) = annotation.split_once('=')?;
            // A name may begin with `manifest:` or another kind. The other kinds have no meaning for a single manifest.
            let name = name.strip_prefix("manifest:").or_else(|| (!name.contains(':')).then_some(name))?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// Returns whether hakobi plans a build of these directories.
    pub fn plans(&self, input: &Input) -> bool {
        self.build.strategy == Strategy::Auto && self.cache.usable().is_some() && !input.directories.is_empty()
    }
}
