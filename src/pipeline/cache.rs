//! What a build starts from and what it leaves for the next one: the pulled-latest image with its stages, and the store.

use std::collections::{BTreeMap, HashSet};

use super::CacheFaults;
use super::build::{Built, Run, SEVERAL_EXPORTS_API};
use super::kept::Kept;
use super::release::Released;
use super::transport::Way;
use crate::domain::{Digest, ImageRef};
use crate::engine::buildkit::{CacheOption, ContentSources, Session};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::graph::Graph;
use crate::handover::{CachedStages, KnownImage, load, load_stages};
use crate::registry::Registries;
use crate::save::{Executed, cache_reference};
use crate::settings::{BuildSettings, CacheFrom, CacheSettings};

/// From this API version on (Docker 25, BuildKit 0.12), a cache may be an image manifest in registries.
const JOINED_CACHE_API: (u32, u32) = (1, 44);

/// The cache that a build starts from.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) imports: Vec<CacheOption>,
    /// The pulled-latest images.
    latest: Vec<KnownImage>,
    /// The stages saved beside them.
    stages: Vec<KnownImage>,
    /// Where stages are saved to.
    save_to: Option<ImageRef>,
    /// What the store holds.
    kept: Vec<KnownImage>,
    /// Whether that is the own scope's.
    own: bool,
    /// Imports that come from the store.
    from_store: Vec<CacheOption>,
}

impl Cache {
    /// Images that are known to be somewhere.
    pub(super) fn known(&self) -> Vec<KnownImage> {
        self.latest.iter().chain(&self.kept).cloned().collect()
    }

    /// The pulled-latest images: of what the store has, a plan's own records say more.
    pub(super) fn latest(&self) -> &[KnownImage] {
        &self.latest
    }

    /// Those that the new image may turn out to be the same as.
    pub(super) fn before(&self) -> Vec<KnownImage> {
        let released = self.kept.iter().filter(|image| image.stage() == Some(""));
        self.latest.iter().chain(released).cloned().collect()
    }

    /// The layers that the store can give.
    pub(super) fn kept_layers(&self) -> HashSet<Digest> {
        self.kept.iter().flat_map(|image| &image.manifest.layers).map(|layer| layer.digest.clone()).collect()
    }

    /// Everything that BuildKit may look at.
    pub(super) fn all_imports(&self) -> Vec<CacheOption> {
        self.imports.iter().chain(&self.from_store).cloned().collect()
    }
}

/// The store of a run, with what went wrong with it.
pub(super) struct Store<'a> {
    /// As long as it can be used.
    pub(super) kept: Option<Kept>,
    pub(super) faults: CacheFaults<'a>,
}

impl<'a> Store<'a> {
    /// Opens it: a fault is a warning and a colder build, unless it is required.
    pub(super) async fn open(
        settings: &'a CacheSettings,
        build: &BuildSettings,
        registries: &Registries,
        events: &'a Events,
    ) -> Result<Self> {
        let faults = CacheFaults::new(settings, events);
        let kept = match Kept::of_build(settings, build, registries, events.hidden()).await {
            Ok(kept) => Some(kept),
            Err(error) => {
                faults.tell("is not used", &error)?;
                None
            }
        };
        Ok(Self { kept, faults })
    }
}

impl Run<'_> {
    /// Keeps the cache for the next run: beside `latest`, in the store, or both.
    pub(super) async fn save(
        &self,
        built: &mut Built,
        session: &Session,
        graph: &Graph,
        executed: &Executed,
        cache: &Cache,
        released: &Released,
    ) -> Result<()> {
        let saving = |stages, to, alone| super::saving::Saving { run: self, session, graph, executed, stages, to, alone };
        if let Some(to) = cache.save_to.as_ref().filter(|_| self.job.build.push) {
            match saving(&cache.stages, to, None).save(released).await {
                Ok(saved) => built.report.layers.saved += saved.pushed,
                Err(error) => {
                    let text = format!("the stages' cache was not saved: {error}");
                    self.job.events.warning(super::with_remedy(text, error.hint_text()));
                }
            }
        }
        let (Some((kept, faults)), Some(to)) = (self.job.kept(), self.keeps()) else { return Ok(()) };
        // What may be damaged is not carried on.
        let whole = kept.damaged().is_empty() && kept.unusable().is_empty();
        let (before, own) = if whole { (&*cache.kept, cache.own) } else { (&[][..], false) };
        let kept = async {
            kept.begin().await.map_err(super::cache_fault)?;
            let image = released.kept().await?;
            let index = saving(before, &to, Some(own)).save(released).await?;
            Ok::<_, Error>((image.pushed + index.pushed, image.bytes + index.bytes))
        };
        match kept.await {
            Ok((layers, bytes)) => {
                built.report.layers.saved += layers;
                built.report.bytes.saved += bytes;
                Ok(())
            }
            Err(error) => faults.tell("did not take this build", &error),
        }
    }

    /// Where the store keeps this build. Before Docker 26 an output besides the image is one too many; what is kept is of one
    /// platform.
    pub(super) fn keeps(&self) -> Option<ImageRef> {
        let build = self.job.build;
        let can = self.info.api >= SEVERAL_EXPORTS_API || build.outputs.is_empty();
        self.job.kept().and_then(|(kept, _)| kept.target()).filter(|_| can && build.platforms.len() < 2)
    }

    /// What the store holds of this image: the own scope's, or the first fallback's that has any.
    async fn stored(&self, cache: &mut Cache, kept: &Kept, faults: &CacheFaults<'_>) -> Result<()> {
        for (place, (scope, reference)) in kept.references().enumerate() {
            match load_stages(&self.job.registries, &reference).await {
                Ok(stages) if stages.images.is_empty() => {}
                Ok(stages) => {
                    self.import_latest(&mut cache.from_store, &reference, &[], &stages);
                    if self.way == Way::Archive {
                        cache.from_store.iter_mut().for_each(through_session);
                    }
                    cache.kept = stages.images;
                    cache.own = place == 0;
                    return Ok(());
                }
                Err(error) => {
                    let what = format!("is not used for the scope {scope}");
                    faults.tell(&what, &error)?;
                }
            }
        }
        Ok(())
    }

    /// The images that the cache references stand for, and what BuildKit is told of them.
    pub(super) async fn cache(&self) -> Result<Cache> {
        let mut cache = Cache::default();
        if let Some((kept, faults)) = self.job.kept() {
            self.stored(&mut cache, kept, faults).await?;
        }
        for from in &self.job.build.cache_from {
            match from {
                CacheFrom::Entry(entry) => {
                    cache.imports.push(CacheOption { kind: entry.kind.clone(), attributes: entry.attributes.clone() });
                }
                CacheFrom::Latest(latest) => {
                    let beside = self.job.build.cache_repository.clone().unwrap_or_else(|| cache_reference(latest));
                    let (image, stages) =
                        tokio::join!(load(&self.job.registries, latest, None), load_stages(&self.job.registries, &beside));
                    let image = self.looked_up(latest, image);
                    let stages = self.looked_up(&beside, stages);
                    if image.is_empty() {
                        self.job.events.note(format!("no image at {latest} to start from: the first build, or another name"));
                    }
                    self.import_latest(&mut cache.imports, latest, &image, &stages);
                    cache.latest.extend(image);
                    cache.stages.extend(stages.images);
                    // Only a run that moves `latest` moves the cache beside it: a branch must not overwrite main's.
                    let owned = self.job.build.cache_repository.is_some() || self.job.tags.contains(latest);
                    if owned && cache.save_to.is_none() {
                        cache.save_to = Some(beside);
                    }
                }
            }
        }
        Ok(cache)
    }

    /// What was found at a cache reference; a fault is a warning and a colder build.
    fn looked_up<T: Default>(&self, reference: &ImageRef, found: crate::registry::Result<T>) -> T {
        found.unwrap_or_else(|error| {
            let text = format!("the cache at {reference} is not used: {error}");
            self.job.events.warning(super::with_remedy(text, error.hint().as_deref()));
            T::default()
        })
    }

    /// What BuildKit is told to look at: as little as holds everything, since of two imports that know a step it may take the
    /// one that has no result for it.
    fn import_latest(&self, imports: &mut Vec<CacheOption>, latest: &ImageRef, image: &[KnownImage], stages: &CachedStages) {
        let goes_with = |released: &str| image.iter().any(|image| image.raw.digest().to_string() == released);
        match &stages.joined {
            Some((joined, released)) if self.info.api >= JOINED_CACHE_API => {
                imports.push(self.import(joined));
                if !image.is_empty() && !goes_with(released) {
                    imports.push(self.import(latest));
                }
            }
            _ => {
                if !image.is_empty() {
                    imports.push(self.import(latest));
                }
                // The released image stands in the index too, for when `latest` is gone. One import for each: BuildKit
                // gives all images of an index one name, and then loses some.
                let of_use =
                    stages.images.iter().filter(|stage| image.is_empty() || stage.stage().is_some_and(|stage| !stage.is_empty()));
                imports.extend(of_use.map(|stage| self.import(&stage.reference())));
            }
        }
    }

    fn import(&self, reference: &ImageRef) -> CacheOption {
        let mut attributes = BTreeMap::from([("ref".to_owned(), reference.to_string())]);
        if self.job.settings.registries.insecure.contains(&reference.repository.host) {
            attributes.insert("registry.insecure".to_owned(), "true".to_owned());
        }
        CacheOption { kind: "registry".to_owned(), attributes }
    }

    /// What the daemon reads of the store through the session.
    pub(super) fn contents(&self) -> ContentSources {
        match self.job.kept() {
            Some((kept, _)) if self.way == Way::Archive => kept.contents(),
            _ => ContentSources::default(),
        }
    }
}

/// Has an image of the store imported through the session. The name of the content store is the repository.
fn through_session(import: &mut CacheOption) {
    let Some((repository, digest)) = import.attributes.get("ref").and_then(|reference| reference.split_once('@')) else { return };
    let attributes = [("src", repository), ("digest", digest)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    *import = CacheOption { kind: "local".to_owned(), attributes: attributes.into() };
}
