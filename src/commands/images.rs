//! `hakobi save IMAGE…` and `hakobi restore IMAGE…`, for jobs that keep their own `docker build` line.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cache::fault::cache_error;
use crate::cache::faults::CacheFaults;
use crate::cache::opened::cache_report;
use crate::cache::session::CacheSession;
use crate::domain::ImageRef;
use crate::engine::{Dialer, Docker, EngineInfo, StoreKind};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::executor::load_images::load;
use crate::handover::{KnownImage, load_stages};
use crate::output::{ImageReport, Outcome, RunReport};
use crate::publish::release::Release;
use crate::push::RepositoryBlobs;
use crate::registry::Registries;
use crate::run::daemon::{engine_report, had};
use crate::run::transport::LayerTransport;
use crate::save::{put_index, with_whole_cache};
use crate::settings::{CacheMode, CacheSettings, Compression, PushSettings, Settings};

/// Saves images of the daemon to the store. It writes only new layers.
///
/// # Errors
/// If the daemon lacks an image, or the store does not accept it: the command does nothing else.
pub async fn save(
    settings: &Settings,
    images: &[ImageRef],
    cache: &CacheSettings,
    compression: Compression,
    events: &Events,
) -> Result<RunReport> {
    let (mut run, began) = (Run::open(settings, cache, events).await?, Instant::now());
    if cache.mode == CacheMode::ReadOnly {
        events.note("the cache is read-only: saving nothing");
        return Ok(run.report);
    }
    for image in images {
        if run.docker.image_id(&image.to_string()).await?.is_none() {
            return Err(Error::build(format!("the daemon has no image {image}")).hint("list its images with `docker images`"));
        }
    }
    for image in images {
        let saved = run.save(image, compression).await?;
        run.report.layers.saved += saved.pushed;
        run.report.bytes.saved += saved.bytes;
        run.report.outcome = Outcome::Success;
    }
    run.report.seconds.save = began.elapsed().as_secs_f64();
    Ok(run.ended())
}

/// Restores images from the store into the daemon. It transfers only layers that the daemon lacks. A missing image is a note,
/// because this may be the first run.
///
/// # Errors
/// If the daemon refuses the image; faults of the store only if it is required.
pub async fn restore(settings: &Settings, images: &[ImageRef], cache: &CacheSettings, events: &Events) -> Result<RunReport> {
    let (mut run, began) = (Run::open(settings, cache, events).await?, Instant::now());
    let faults = CacheFaults::new(cache, events);
    for image in images {
        match run.restore(image).await {
            Ok(true) => run.report.outcome = Outcome::Success,
            Ok(false) => {}
            Err(error) if error.kind() == Kind::Cache => {
                faults.warn(&format!("failed to restore {image} from"), &error)?;
            }
            Err(error) => return Err(error),
        }
    }
    if run.info.store == StoreKind::Containerd && run.report.outcome == Outcome::Success {
        events.note(
            "this daemon uses the containerd store, in which `docker build --cache-from` finds no cache: use `hakobi build --cache`",
        );
    }
    run.report.cache.warnings = faults.warnings();
    run.report.seconds.restore = began.elapsed().as_secs_f64();
    Ok(run.ended())
}

struct Run<'a> {
    cache: &'a CacheSettings,
    events: &'a Events,
    registries: Registries,
    docker: Docker,
    info: EngineInfo,
    way: LayerTransport,
    report: RunReport,
    began: Instant,
}

impl<'a> Run<'a> {
    async fn open(settings: &Settings, cache: &'a CacheSettings, events: &'a Events) -> Result<Self> {
        let began = Instant::now();
        let registries = Registries::new(&settings.registries, events.clone());
        let docker = Docker::connect(Dialer::new(&settings.daemon)?).await?;
        let info = docker.info().await?;
        crate::run::leftovers::clear(&docker).await;
        let way = LayerTransport::choose(settings.transport, &docker).await?;
        let report = RunReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outcome: Outcome::Skipped,
            engine: engine_report(&info, Some(way)),
            cache: cache_report(cache),
            ..RunReport::default()
        };
        Ok(Self { cache, events, registries, docker, info, way, report, began })
    }

    fn ended(mut self) -> RunReport {
        self.report.seconds.total = self.began.elapsed().as_secs_f64();
        self.report
    }

    async fn session(&self, image: &ImageRef) -> Result<CacheSession> {
        let tag = image.tag.as_deref().unwrap_or("latest");
        let session = CacheSession::open(self.cache, &image.repository.path, tag, &self.registries).await;
        session.map_err(|error| cache_error(&format!("failed to open the cache {}", self.cache.shown), &error))
    }

    async fn save(&mut self, image: &ImageRef, compression: Compression) -> Result<RepositoryBlobs> {
        let session = self.session(image).await?;
        let to = session.target().ok_or_else(|| Error::new(Kind::Cache, "the cache is read-only"))?;
        let failed = |error: Error| Error::new(Kind::Cache, format!("failed to save {image}")).caused_by(error);
        let before = load_stages(&self.registries, &to).await.map_err(|error| failed(error.into()))?.images;
        let push = PushSettings { compression, ..PushSettings::default() };
        let release = Release::open(&self.registries, &[], Some(&to.repository), &push, &before, self.events).await?;
        self.docker.tag(&image.to_string(), &release.reference()).await?;
        let last = before.iter().find(|image| image.stage() == Some(""));
        let known: Vec<KnownImage> = last.into_iter().cloned().collect();
        let exit = self.way.exit(&self.info, true);
        let made = had(&self.docker, &self.info, image).await?;
        let released = Box::pin(release.push(&self.docker, exit, made, BTreeMap::new(), &known, false, &[])).await?;
        let step = self.events.step(format!("[hakobi] saving {image}"));
        let saved = async {
            session.begin().await.map_err(|error| cache_error("failed to create the cache", &error))?;
            let blobs = released.saved().await?;
            let [composed] = &released.images[..] else {
                return Err(Error::new(Kind::Cache, "an image for several platforms cannot be saved"));
            };
            self.report.images.push(ImageReport {
                digest: composed.manifest.digest().to_string(),
                platform: composed.platform.to_string(),
                ..ImageReport::default()
            });
            if last.is_some_and(|last| last.raw == composed.manifest) {
                session.keep_uses_if_possible().await;
                return Ok(blobs);
            }
            let whole = with_whole_cache(composed, &[], last)?;
            let intake = released.release.intake_for(&to, &before, &released.images).await?;
            let stages: Vec<KnownImage> = before.iter().filter(|image| image.stage() != Some("")).cloned().collect();
            let index = put_index(&intake.pusher, &to, &to.repository, &[(String::new(), whole)], &stages).await?;
            session.flush().await.map_err(|error| cache_error("failed to save the records", &error))?;
            Ok(RepositoryBlobs { pushed: blobs.pushed + index.pushed, bytes: blobs.bytes + index.bytes, ..blobs })
        }
        .await;
        match &saved {
            Ok(_) => step.done(),
            Err(error) => step.failed(error),
        }
        saved.map_err(|error| if error.kind() == Kind::Cache { error } else { failed(error) })
    }

    /// Restores an image. Returns `false` if the store does not have it.
    ///
    /// # Errors
    /// If the store cannot be read, or the daemon refuses the image.
    async fn restore(&mut self, image: &ImageRef) -> Result<bool> {
        let session = self.session(image).await?;
        let Some(found) = session.released(&self.registries).await? else {
            let scopes: Vec<&str> = session.references().map(|(scope, _)| scope).collect();
            self.events.note(format!(
                "the cache has no {image} (scopes: {}): this is the first run, or the name is wrong",
                scopes.join(", ")
            ));
            return Ok(false);
        };
        let id = match self.info.store {
            StoreKind::GraphDriver => found.manifest.config.digest.to_string(),
            StoreKind::Containerd => found.raw.digest().to_string(),
        };
        self.report.images.push(ImageReport {
            id: id.clone(),
            digest: found.raw.digest().to_string(),
            config: found.manifest.config.digest.to_string(),
            ..ImageReport::default()
        });
        if self.docker.image_id(&image.to_string()).await?.is_some_and(|there| there == id) {
            self.events.note(format!("{image} is already in the daemon"));
            session.keep_uses_if_possible().await;
            return Ok(true);
        }
        let step = self.events.step(format!("[hakobi] restoring {image}"));
        // The daemon briefly has the image under a name of hakobi's.
        let scratch = crate::transfer::temp_dir(Kind::Cache)?;
        scratch.remember(session.secret_path());
        let restored = match self.way {
            LayerTransport::Registry => self.pull(&found, image).await,
            LayerTransport::Archive => self.load(&found, image).await,
        };
        match &restored {
            Ok(_) => step.done(),
            Err(error) => step.failed(error),
        }
        let (layers, bytes) = match restored {
            Ok(None) => {
                let restored = session.restored(&found.manifest.layers.iter().map(|layer| layer.digest.clone()).collect());
                (restored.layers, restored.bytes)
            }
            Ok(Some(loaded)) => loaded,
            // The damaged blobs are a clearer reason than the daemon's message.
            Err(_) if !session.damaged().is_empty() => {
                let damaged: Vec<String> = session.damaged().iter().map(ToString::to_string).collect();
                return Err(Error::new(Kind::Cache, format!("damaged: {}", damaged.join(", ")))
                    .hint("remove damaged objects with `hakobi cache verify --repair`"));
            }
            Err(error) => return Err(error),
        };
        self.report.layers.restored += layers;
        self.report.bytes.restored += bytes;
        session.keep_uses_if_possible().await;
        Ok(true)
    }

    /// Lets the daemon pull from the loopback registry. The daemon pulls only layers that it lacks, several at once.
    async fn pull(&self, found: &KnownImage, image: &ImageRef) -> Result<Option<(u64, u64)>> {
        let ours = found.reference();
        self.docker.pull_as(&ours, image).await?;
        Ok(None)
    }

    /// Loads an archive without the layers that the daemon has. Returns the number of the layers that hakobi sent, and their bytes.
    async fn load(&self, found: &KnownImage, image: &ImageRef) -> Result<Option<(u64, u64)>> {
        let home = self.registries.home(&found.repository);
        let came = load(&self.docker, &self.info, found, image, home).await?;
        Ok(Some((came.len() as u64, came.iter().map(|(_, size)| size).sum())))
    }
}
