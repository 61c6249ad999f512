//! What is asked for, and what there is to do it with whether there is a daemon or not.

use std::collections::BTreeMap;

use super::build::Built;
use super::cache::Store;
use super::kept::Kept;
use super::release::{NotGiven, Release, Released};
use super::{Amiss, CacheFaults};
use crate::build::{Compiled, Refusal, is_passing};
use crate::domain::{Descriptor, Digest, ImageRef};
use crate::engine::buildkit::SolveOutcome;
use crate::engine::{EngineInfo, StoreKind};
use crate::error::Result;
use crate::event::Events;
use crate::push::Failure;
use crate::registry::Registries;
use crate::report::{Deployable, ImageReport, LayerCounts, Metadata, TagReport, add_outputs, hand_off, write_iid_file};
use crate::settings::{BuildSettings, ContextSource, DockerfileSource, Settings};

/// How often a solve is begun again when the network or a registry had a bad moment.
const ATTEMPTS: u32 = 3;

pub(super) struct Job<'a> {
    pub(super) settings: &'a Settings,
    pub(super) build: &'a BuildSettings,
    pub(super) events: &'a Events,
    pub(super) registries: Registries,
    /// What is pushed, or what the image is called in the daemon.
    pub(super) tags: Vec<ImageRef>,
    /// The store.
    pub(super) store: Option<Store<'a>>,
}

impl Job<'_> {
    /// Whether a solve that failed is to be begun again; waits then, so that what was amiss may pass.
    pub(super) async fn tries_again(&self, attempt: &mut u32, status: &Refusal) -> bool {
        // A solve that was cut off shares its steps with the next one for as long as BuildKit has not let go of it.
        let left_over = self.is_left_over(status.message());
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
    pub(super) fn is_only_pushed(&self) -> bool {
        self.build.push && !self.build.load && self.build.outputs.is_empty()
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.build.context != ContextSource::Stdin || self.build.dockerfile == DockerfileSource::Stdin
    }

    /// `--annotation`, for the manifest.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        let pairs = self.build.annotations.iter().filter_map(|annotation| {
            let (name, value) = annotation.split_once('=')?;
            // `manifest:` and the like; on a single manifest the others mean nothing.
            let name = name.strip_prefix("manifest:").or_else(|| (!name.contains(':')).then_some(name))?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// Writes the report, the image's ID and the metadata.
    pub(super) fn tell(
        &self,
        built: &mut Built,
        id: &str,
        solved: &SolveOutcome,
        released: Option<&Released>,
        compiled: &Compiled,
        engine: Option<&EngineInfo>,
    ) -> Result<()> {
        let platform = compiled.platform().map(|platform| platform.to_string()).unwrap_or_default();
        let config = solved.exporter.get("containerimage.config.digest").cloned();
        // Without a daemon and on overlay2 engines the two are one.
        let apart = engine.is_some_and(|engine| engine.store == StoreKind::Containerd);
        let config = config.unwrap_or_else(|| if apart { String::new() } else { id.to_owned() });
        let report = &mut built.report;
        let mut descriptor: Option<Descriptor> = None;
        let tags = self.tags.iter().map(|tag| TagReport { reference: tag.to_string(), pushed: false });
        let mut image = ImageReport { id: id.to_owned(), config, platform, tags: tags.collect(), ..ImageReport::default() };
        if let Some(released) = released {
            for tag in &mut image.tags {
                tag.pushed =
                    released.tags.iter().any(|outcome| outcome.is_pushed() && outcome.reference.to_string() == tag.reference);
            }
            let LayerCounts { saved, restored, .. } = report.layers;
            report.layers = LayerCounts { saved, restored, ..released.layers };
            report.bytes.pushed = released.bytes;
            descriptor = Some(released.manifest.descriptor());
            image.digest = released.manifest.digest().to_string();
            for one in &released.images {
                let config = one.manifest.manifest().map(|manifest| manifest.config.digest.to_string()).unwrap_or_default();
                report.images.push(ImageReport {
                    config,
                    platform: one.platform.to_string(),
                    digest: one.manifest.digest().to_string(),
                    ..image.clone()
                });
            }
        } else if !id.is_empty() {
            report.images.push(image);
        }
        if let Some(path) = &self.build.iid_file
            && !id.is_empty()
        {
            write_iid_file(path, id)?;
        }
        // An index has several.
        let config_digest = match &report.images[..] {
            [image] => image.config.parse::<Digest>().ok(),
            _ => None,
        };
        let metadata = Metadata {
            config_digest,
            descriptor,
            names: self.tags.clone(),
            exporter_response: solved.exporter.clone().into_iter().collect(),
        };
        write_metadata(self.build, &metadata, id, self.events)?;
        if let (Some(released), Some(tag)) = (released.filter(|released| released.failure().is_ok()), self.tags.first())
            && self.build.push
        {
            hand_off(&self.build.hand_off, &Deployable { tag: tag.clone(), digest: released.manifest.digest() })?;
        }
        built.text =
            (self.settings.progress == crate::settings::ProgressMode::Quiet && !id.is_empty()).then(|| format!("{id}\n"));
        Ok(())
    }

    /// What was released. If the image is only kept, a failure is the cache's.
    pub(super) fn released(&self, released: Result<Released>) -> Result<Option<Released>> {
        match (released, self.kept()) {
            (Ok(released), _) => Ok(Some(released)),
            (Err(error), Some((_, faults))) if !self.build.push => {
                faults.tell("did not take this build", &error)?;
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The store, as long as it can be used.
    pub(super) fn kept(&self) -> Option<(&Kept, &CacheFaults<'_>)> {
        let store = self.store.as_ref()?;
        Some((store.kept.as_ref()?, &store.faults))
    }

    /// Says so if something of the store could not be read that BuildKit went on without.
    pub(super) fn store_was_read(&self) -> Result<()> {
        let Some((kept, faults)) = self.kept() else { return Ok(()) };
        // What is damaged, and why the store was given up, was told when it was found.
        match kept.unread().filter(|_| !kept.is_distrusted() && !faults.gave_up()) {
            Some(why) => faults.tell("could not be read in part, which costs time", &Amiss(&why, None)),
            None => Ok(()),
        }
    }

    /// Waits until a layer of the store turns out to be damaged: for ever, where there is no store.
    pub(super) async fn store_damaged(&self) {
        match self.kept() {
            Some((kept, _)) => kept.found_damaged().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the store was given up.
    pub(super) fn gave_store_up(&self) -> bool {
        self.kept().is_none_or(|(_, faults)| faults.gave_up())
    }

    /// Whether the store is used still.
    pub(super) fn trusts_store(&self) -> bool {
        self.kept().is_some_and(|(kept, faults)| !faults.gave_up() && !kept.is_distrusted())
    }

    /// Why a base image's layer did not come through the endpoint, if one did not.
    pub(super) async fn not_passed(&self) -> Option<String> {
        let passes = self.kept().and_then(|(kept, _)| kept.own()).is_none_or(crate::endpoint::Shelf::passes);
        if passes { None } else { Some(self.cannot_pass().await) }
    }

    /// Waits until a base image's layer does not come through the endpoint, and says why: for ever, where all do.
    pub(super) async fn cannot_pass(&self) -> String {
        match self.kept().and_then(|(kept, _)| kept.own()) {
            Some(own) => own.cannot_pass().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is the store that a solve failed by.
    pub(super) fn blames_store(&self, message: &str) -> bool {
        let Some((kept, _)) = self.kept() else { return false };
        let is_named = kept.own().is_some_and(|own| own.is_named_in(message));
        is_named || kept.is_distrusted() || kept.references().any(|(_, reference)| message.contains(&*reference.repository.path))
    }

    /// Whether it is a layer that a solve still waited for after the store, or the way of base images through here, was left out.
    pub(super) fn is_left_over(&self, message: &str) -> bool {
        // containerd's words, Docker's, and those of a store that is read through the session.
        const FETCHING: [&str; 4] = ["could not fetch content descriptor", "failed to copy", "is damaged", "blob"];
        let broken = |kept: &Kept| kept.is_distrusted() || !kept.own().is_none_or(crate::endpoint::Shelf::passes);
        self.kept().is_some_and(|(kept, _)| broken(kept)) && FETCHING.iter().any(|words| message.contains(words))
    }

    /// The store did not give what it remembers: nothing of it is used from here on.
    pub(super) fn store_gave_not(&self, why: &NotGiven) -> Result<()> {
        let Some((_, faults)) = self.kept() else { return Ok(()) };
        match why {
            NotGiven::Lacking => {
                faults.give_up();
                faults.tell("lacks layers of what it remembers", &Amiss("they were removed", Some("the next run has them again")))
            }
            NotGiven::Broken(why) => self.store_failed(why, None),
            NotGiven::Otherwise(why) => {
                faults.give_up();
                faults.tells_damage();
                faults.tell("has records that are not right, and the build begins again without it", &Amiss(why, None))
            }
        }
    }

    /// Whether a push failed because the store did not give a layer, so that the build is to begin again without it. That was told.
    pub(super) fn failed_by_store(&self, failure: &Failure) -> Result<bool> {
        let Some((kept, faults)) = self.kept() else { return Ok(false) };
        let by_store = failure.source().is_some_and(|from| kept.repositories().contains(from));
        // What was given up once is not to blame again.
        if !by_store || faults.left_out() || !self.is_repeatable() {
            return Ok(false);
        }
        self.store_failed(failure.error.message(), None)?;
        faults.leave_out();
        Ok(true)
    }

    pub(super) fn store_failed(&self, message: &str, release: Option<&Release>) -> Result<()> {
        let Some((kept, faults)) = self.kept() else { return Ok(()) };
        if let Some(release) = release {
            release.forget(&kept.repositories());
        }
        faults.give_up();
        let (why, hint) = match kept.is_distrusted() {
            false => (message.to_owned(), None),
            true => {
                faults.tells_damage();
                let damaged: Vec<String> = kept.damaged().iter().map(ToString::to_string).collect();
                (format!("damaged: {}", damaged.join(", ")), Some("`hakobi cache verify --repair` removes what is damaged"))
            }
        };
        faults.tell("is not used, and the build begins again without it", &Amiss(&why, hint))
    }

    /// Says so if something of the store was damaged or did not make sense, unless that was told. Each was a miss.
    pub(super) fn tell_damage(&self) -> Result<()> {
        let Some((kept, faults)) = self.kept() else { return Ok(()) };
        let damaged = kept.damaged().into_iter().map(|digest| format!("the blob {digest}"));
        let mut all: Vec<String> = damaged.chain(kept.unusable().into_iter().map(|name| name.to_string())).collect();
        if all.is_empty() || faults.tells_damage() {
            return Ok(());
        }
        all.sort();
        let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
        let what = match kept.writes() {
            true => "had damaged objects, which cost time; this build wrote anew what it made",
            false => "has damaged objects, which cost time",
        };
        faults.tell(what, &Amiss(&format!("{}{more}", all.swap_remove(0)), None))
    }
}

/// Writes what is known of an image for scripts, and for the later steps of a GitHub workflow.
pub(super) fn write_metadata(build: &BuildSettings, metadata: &Metadata, id: &str, events: &Events) -> Result<()> {
    if let Some(path) = &build.metadata_file {
        metadata.write(path)?;
    }
    // Nobody asked for these: that they cannot be written fails nothing.
    if let Some(path) = &build.hand_off.github_output {
        let digest = metadata.descriptor.as_ref().map(|descriptor| descriptor.digest.to_string()).unwrap_or_default();
        if let Err(error) = add_outputs(path, id, &digest, &metadata.to_json().into()) {
            events.warning(format!("the step has no outputs: {}", error.message()));
        }
    }
    Ok(())
}
