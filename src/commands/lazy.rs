//! A daemon of hakobi's own for a build: whether, its start, and its disk in the cache afterwards.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::build::Input;
use crate::cache::session::CacheSession;
use crate::disk::protocol::DiskStore;
use crate::disk::{CHUNK, DiskRecord};
use crate::domain::seconds_now;
use crate::engine::Docker;
use crate::error::{Error, Kind, Result};
use crate::executor::mount_container::within;
use crate::lazy_daemon::{DaemonStart, LazyDaemon, configuration, machine};
use crate::output::DiskReport;
use crate::plan::RecordKey;
use crate::run::context::BuildContext;
use crate::run::daemon::Daemon;
use crate::settings::{DaemonChoice, DockerfileSource};

/// The size of a new disk in bytes. What nobody has written takes no place in the store.
const SIZE: u64 = 32 << 30;

/// How long the daemon may take until it answers.
const ANSWERS: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// How long after its last answer it may take until it is known why a daemon has gone.
const KNOWN: Duration = Duration::from_secs(5);

/// A daemon of hakobi's own, with what is needed to keep its disk.
pub struct OwnDaemon {
    pub lazy: LazyDaemon,
    key: RecordKey<DiskRecord>,
    /// The record of the own scope.
    own: Option<DiskRecord>,
    /// As in [`DiskRecord::daemon`].
    kind: String,
    /// How many builds its disk has seen.
    builds: u64,
}

/// Starts a daemon of hakobi's own, if the settings want one and everything allows it. Otherwise a warning says why not, unless the
/// user left the choice to hakobi.
pub async fn start(context: &BuildContext<'_>, input: &Input) -> Option<(OwnDaemon, Daemon)> {
    let choice = context.build.daemon.choice;
    if choice == DaemonChoice::Stock {
        return None;
    }
    match Box::pin(try_start(context, input)).await {
        Ok(started) => started,
        Err(why) => {
            tracing::info!(why, "no daemon of hakobi's own");
            if choice == DaemonChoice::Lazy {
                context.events.warning(format!("--daemon lazy is not possible, using the machine's daemon: {why}"));
            }
            None
        }
    }
}

/// Returns `None` if the cache has no disk, and none is to be made.
async fn try_start(context: &BuildContext<'_>, input: &Input) -> std::result::Result<Option<(OwnDaemon, Daemon)>, String> {
    let build = context.build;
    if !context.plans(input) {
        return Err("it requires a plan of hakobi's, and so a cache".to_owned());
    }
    if !context.is_only_pushed() {
        return Err("the image is to be in the machine's daemon, or is written to a file".to_owned());
    }
    if !context.is_repeatable() || build.dockerfile == DockerfileSource::Stdin {
        return Err("the build reads standard input, which it cannot read again".to_owned());
    }
    let Some((session, faults)) = context.cache.usable() else { return Err("the cache cannot be used".to_owned()) };
    let Some(store) = DiskStore::new(&faults.settings.location) else {
        return Err("a registry cannot have its disk; use a bucket or a directory".to_owned());
    };
    let (key, records) = (session.disk_key(), session.records());
    let unread = |error: crate::store::Error| format!("failed to read its record: {error}");
    let own = records.own(&key).await.map_err(unread)?;
    let found = match &own {
        Some(own) => Some(own.clone()),
        None => records.one(&key).await.map_err(unread)?,
    };
    if found.is_none() && build.daemon.choice == DaemonChoice::Auto {
        return Ok(None);
    }
    let stock = stock_configuration(&build.daemon.configuration).await?;
    let has_network = configuration::has_network(&stock);
    let docker = tokio::task::spawn_blocking(move || machine::look(has_network)).await.map_err(|error| error.to_string())??;
    let shared = configuration::shared(&stock);
    let kind = format!("{} {}", docker.version, configuration::of_data(&shared));
    let found = found.filter(|record| record.daemon == kind);
    crate::run::leftovers::clear_without_daemon().await;
    let work = crate::transfer::temp_dir(Kind::NoDaemon).map_err(|error| error.to_string())?;
    let start = DaemonStart {
        work: work.path().to_owned(),
        store,
        saved: found.as_ref().map(|record| record.disk.clone()),
        size: SIZE,
        ahead: found.as_ref().map(|record| record.reads.clone()).unwrap_or_default(),
        configuration: shared,
        major: docker.major,
        has_network,
    };
    let step = context.events.step("[hakobi] starting a daemon of its own");
    let lazy = LazyDaemon::start(work, start).await.map_err(|error| {
        step.failed(&error);
        error.to_string()
    })?;
    let own = OwnDaemon { lazy, key, own, kind, builds: found.map_or(0, |record| record.builds) };
    let daemon = tokio::select! {
        daemon = answer(&own.lazy) => daemon,
        why = own.lazy.lost() => Err(why),
    };
    match daemon {
        Ok(daemon) => {
            step.done();
            Ok(Some((own, daemon)))
        }
        Err(why) => {
            step.failed(&why);
            own.lazy.abandon().await;
            Err(why)
        }
    }
}

/// Reads the configuration of the machine's daemon.
///
/// # Errors
/// Why not, in words. A file that does not exist has no settings.
pub async fn stock_configuration(path: &Path) -> std::result::Result<Map<String, Value>, String> {
    match tokio::fs::read(path).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(format!("failed to read {}: {error}", path.display())),
    }
}

/// Waits until the daemon answers.
async fn answer(lazy: &LazyDaemon) -> std::result::Result<Daemon, String> {
    let deadline = Instant::now() + ANSWERS;
    loop {
        if lazy.is_there() {
            match Daemon::connect(lazy.endpoint()).await {
                Ok(daemon) => return Ok(daemon),
                Err(error) if Instant::now() > deadline => return Err(error.to_string()),
                Err(_) => {}
            }
        } else if Instant::now() > deadline {
            return Err(format!("dockerd did not answer within {} s", ANSWERS.as_secs()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl OwnDaemon {
    /// Returns why the daemon has gone, after a build that failed. Returns `None` if it still answers: then it is the build's fault.
    pub async fn gone(&self, docker: &Docker) -> Option<String> {
        if docker.answers().await {
            return None;
        }
        let why = tokio::time::timeout(KNOWN, self.lazy.lost()).await;
        Some(why.unwrap_or_else(|_| "it does not answer".to_owned()))
    }

    /// Stops the daemon, and saves its disk if this run may write to the cache. The image is in its registries by now.
    ///
    /// # Errors
    /// If the cache fails and is required.
    pub async fn end(self, context: &BuildContext<'_>) -> Result<DiskReport> {
        let Some((session, faults)) = context.cache.usable().filter(|(session, _)| session.writes()) else {
            self.lazy.abandon().await;
            return Ok(DiskReport::default());
        };
        let step = context.events.step("[hakobi] saving the daemon's disk");
        match Box::pin(self.save(context, session)).await {
            Ok(report) => {
                step.done();
                context.events.note(match report.kept {
                    true => format!("the daemon's disk: {:.1} MB read, {:.1} MB saved", mega(report.read), mega(report.saved)),
                    false => "another build saved the daemon's disk meanwhile; this build's is not kept".to_owned(),
                });
                Ok(report)
            }
            Err(error) => {
                step.failed(&error);
                faults.warn_unsaved(&Error::new(Kind::Cache, format!("failed to save the daemon's disk: {error}")))?;
                Ok(DiskReport::default())
            }
        }
    }

    async fn save(self, context: &BuildContext<'_>, session: &CacheSession) -> io::Result<DiskReport> {
        let Self { lazy, key, own, kind, builds } = self;
        session.begin().await.map_err(io::Error::other)?;
        let kept = within(context.build.mounts.budget, lazy.save()).await?;
        let (read, saved) = (kept.reads.len() as u64 * CHUNK as u64, kept.uploaded);
        let record = DiskRecord { daemon: kind, disk: kept.saved, reads: kept.reads, builds: builds + 1, saved: seconds_now() };
        let kept = session.records().replace(&key, own.as_ref(), &record).await.map_err(io::Error::other)?;
        Ok(DiskReport { kept, read, saved })
    }
}

/// Returns megabytes, for a message.
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
