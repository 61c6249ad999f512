//! A daemon of hakobi's own for a build: whether, its start, and its disk in the cache afterwards.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::build::Input;
use crate::cache::session::CacheSession;
use crate::disk::protocol::{DiskStore, KeptDisk};
use crate::disk::{CHUNK, DiskLoss, DiskRecord};
use crate::domain::seconds_now;
use crate::engine::Docker;
use crate::engine::buildkit::BuildKit;
use crate::error::{Error, Kind, Result};
use crate::executor::mount_container::within;
use crate::lazy_daemon::{DaemonStart, LazyDaemon, configuration, machine};
use crate::output::DiskReport;
use crate::plan::RecordKey;
use crate::run::context::BuildContext;
use crate::run::daemon::Daemon;
use crate::settings::{DaemonChoice, DockerfileSource};
use crate::transfer::Scratch;

/// The size of a new disk in bytes. What nobody has written takes no place in the store.
const SIZE: u64 = 32 << 30;

/// A disk that has more bytes than this shrinks: BuildKit's cache then keeps that much of what was used last.
const KEEP: u64 = 10 << 30;

/// How long the daemon may take until it answers.
const ANSWERS: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// How long after its last answer it may take until it is known why a daemon has gone.
const KNOWN: Duration = Duration::from_secs(5);

/// A daemon of hakobi's own, with what is needed to keep its disk.
pub struct OwnDaemon {
    pub lazy: LazyDaemon,
    disk: KeptRecord,
}

/// What is kept of a daemon's disk between builds.
struct KeptRecord {
    key: RecordKey<DiskRecord>,
    /// The record of the own scope.
    own: Option<DiskRecord>,
    /// As in [`DiskRecord::daemon`].
    kind: String,
    /// The record with the disk that the daemon has. `None` if it has begun a new one.
    used: Option<DiskRecord>,
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
    let (found, is_own) = records.first(&key).await.map_err(unread)?.unzip();
    let own = found.clone().filter(|_| is_own == Some(true));
    if found.is_none() && build.daemon.choice == DaemonChoice::Auto {
        return Ok(None);
    }
    if build.daemon.choice == DaemonChoice::Auto
        && let Some((stock, lazy)) = records.one(&session.runs_key()).await.ok().flatten().and_then(|runs| runs.medians())
        && lazy > stock
    {
        let why = format!("the last builds with one took {lazy:.0}s (median), and {stock:.0}s with the machine's daemon");
        context.events.note(format!("no daemon of hakobi's own: {why}"));
        return Ok(None);
    }
    let stock = stock_configuration(&build.daemon.configuration).await?;
    let has_network = configuration::has_network(&stock);
    let docker = tokio::task::spawn_blocking(move || machine::look(has_network)).await.map_err(|error| error.to_string())??;
    let shared = configuration::shared(&stock);
    let kind = format!("{} {}", docker.version, configuration::of_data(&shared));
    let mends = found.as_ref().is_some_and(|record| record.disk.is_none());
    let used = found.filter(|record| record.daemon == kind && record.disk.is_some());
    let disk = KeptRecord { key, own, kind, used };
    crate::run::leftovers::clear_without_daemon().await;
    let work = crate::transfer::temp_dir(Kind::NoDaemon).map_err(|error| error.to_string())?;
    let start = DaemonStart {
        work: work.path().to_owned(),
        store,
        saved: disk.used.as_ref().and_then(|record| record.disk.clone()),
        size: SIZE,
        mends,
        ahead: disk.used.as_ref().map(|record| record.reads.clone()).unwrap_or_default(),
        configuration: shared,
        major: docker.major,
        has_network,
    };
    let step = context.events.step("[hakobi] starting a daemon of its own");
    match begin(work, start).await {
        Ok((lazy, daemon)) => {
            step.done();
            Ok(Some((OwnDaemon { lazy, disk }, daemon)))
        }
        Err(loss) => {
            step.failed(&loss);
            disk.discard(context, &loss).await;
            Err(loss.why)
        }
    }
}

/// Starts a daemon, and waits until it answers.
async fn begin(work: Scratch, start: DaemonStart) -> std::result::Result<(LazyDaemon, Daemon), DiskLoss> {
    let lazy = LazyDaemon::start(work, start).await.map_err(DiskLoss::of)?;
    let daemon = tokio::select! {
        // What its disk has may be why it does not.
        daemon = answer(&lazy) => daemon.map_err(|why| DiskLoss::new(why).of_doubtful_disk()),
        loss = lazy.lost() => Err(loss),
    };
    match daemon {
        Ok(daemon) => Ok((lazy, daemon)),
        Err(loss) => {
            lazy.abandon().await;
            Err(loss)
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
    pub async fn gone(&self, docker: &Docker) -> Option<DiskLoss> {
        if docker.answers().await {
            return None;
        }
        let why = tokio::time::timeout(KNOWN, self.lazy.lost()).await;
        Some(why.unwrap_or_else(|_| DiskLoss::new("it does not answer")))
    }

    /// Lets go of a daemon that is lost, for this reason, and of its saved disk if that is bad.
    pub async fn forget(self, context: &BuildContext<'_>, loss: &DiskLoss) {
        self.lazy.abandon().await;
        self.disk.discard(context, loss).await;
    }

    /// Stops the daemon, and saves its disk if this run may write to the cache. The image is in its registries by now.
    ///
    /// # Errors
    /// If the cache fails and is required.
    pub async fn end(self, context: &BuildContext<'_>, buildkit: &BuildKit) -> Result<DiskReport> {
        let Some((session, faults)) = context.cache.usable().filter(|(session, _)| session.writes()) else {
            self.lazy.abandon().await;
            return Ok(DiskReport::default());
        };
        let step = context.events.step("[hakobi] saving the daemon's disk");
        let Self { lazy, disk } = self;
        match Box::pin(disk.save(context, session, lazy, buildkit)).await {
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
                let loss = DiskLoss::of(error);
                disk.discard(context, &loss).await;
                faults.warn_unsaved(&Error::new(Kind::Cache, format!("failed to save the daemon's disk: {loss}")))?;
                Ok(DiskReport::default())
            }
        }
    }
}

impl KeptRecord {
    async fn save(
        &self,
        context: &BuildContext<'_>,
        session: &CacheSession,
        lazy: LazyDaemon,
        buildkit: &BuildKit,
    ) -> io::Result<DiskReport> {
        session.begin().await.map_err(io::Error::other)?;
        let too_large = self.used.as_ref().is_some_and(|record| record.used > KEEP);
        let saving = async {
            if too_large {
                buildkit.prune(KEEP).await.map_err(io::Error::other)?;
            }
            lazy.save().await
        };
        let kept = within(context.build.mounts.budget, saving).await?;
        let (read, saved) = (kept.reads.len() as u64 * CHUNK as u64, kept.uploaded);
        let kept = self.replace(session, Some(kept)).await.map_err(io::Error::other)?;
        Ok(DiskReport { kept, read, saved })
    }

    /// Writes the own scope's record. Returns whether it did: not if another build has changed it meanwhile.
    async fn replace(&self, session: &CacheSession, kept: Option<KeptDisk>) -> crate::store::Result<bool> {
        let builds = if kept.is_some() { self.used.as_ref().map_or(0, |record| record.builds) + 1 } else { 0 };
        let (used, reads) = kept.as_ref().map(|kept| (kept.used, kept.reads.clone())).unwrap_or_default();
        let disk = kept.map(|kept| kept.saved);
        let record = DiskRecord { daemon: self.kind.clone(), disk, used, reads, builds, saved: seconds_now() };
        session.records().replace(&self.key, self.own.as_ref(), &record).await
    }

    /// Throws the saved disk away if it is bad, so that the next build begins a new one.
    async fn discard(&self, context: &BuildContext<'_>, loss: &DiskLoss) {
        let writes = context.cache.usable().filter(|(session, _)| session.writes());
        let Some((session, _)) = writes.filter(|_| loss.is_damage && self.used.is_some()) else { return };
        // Otherwise a disk with the same chunk would find it there, and not write it. A role may lack the right to.
        if let Some(blob) = &loss.blob {
            let removed = session.blobs().remove(blob).await;
            let _ = removed.inspect_err(|error| tracing::info!(%error, "failed to remove a bad chunk"));
        }
        match self.replace(session, None).await {
            Ok(_) => context.events.warning(format!(
                "the saved disk of hakobi's own daemon is thrown away, and the next build with one begins anew: {}",
                loss.why
            )),
            Err(error) => tracing::info!(%error, "failed to throw a disk away"),
        }
    }
}

/// Returns megabytes, for a message.
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
