//! Saves the cache mounts that the commands of a build have used, with the times of the files that they saw.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::time::Instant;

use crate::domain::{DiffId, Digest, StepKey, seconds_now};
use crate::error::{Error, Kind, Result};
use crate::executor::execution::Execution;
use crate::executor::mount_container::{ReachableMount, reachable, uses, with_mounts, within};
use crate::executor::mount_layers::{cached_layers, steps_below, without_bases};
use crate::executor::mount_outlook::{MountOutlook, outlooks};
use crate::executor::mount_state::MountState;
use crate::executor::mount_times;
use crate::executor::mounts::unexpected;
use crate::executor::progress::SolveProgress;
use crate::graph::{Input, Key, cache_mounts};
use crate::mounts::conversation::Conversation;
use crate::mounts::entry::ListedEntry;
use crate::mounts::protocol::{Reply, Request};
use crate::mounts::record::{CarriedMount, MountCost, MountsRecord, shown_id};
use crate::mounts::times::ContextTimes;
use crate::mounts::{Earlier, Limits, Listing, PartSource, Saved, SentPart, load, save};
use crate::plan::step_key;
use crate::planner::build_plan::BuildPlan;
use crate::recorder::recording::Recorder;
use crate::settings::{FileTimes, MountMode};

/// The most files of one mount in the cache.
const MOST_FILES: u64 = 500_000;

/// The mounts that a build has used.
pub struct UsedMounts {
    mounts: Vec<UsedMount>,
    /// The times that were chosen for the context.
    times: Option<ContextTimes>,
    /// Whether the saved content did not fit the daemon's.
    is_unusable: bool,
    /// What the plan said of all mounts of these commands, also of those that hakobi does not carry.
    outlooks: Vec<MountOutlook>,
    /// What [`Self::save`] did, by the mounts' keys.
    saves: HashMap<String, MountSave>,
}

/// What a save of a mount did.
#[derive(Debug, Clone, Copy)]
pub struct MountSave {
    /// The bytes that hakobi uploaded.
    pub uploaded: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    files: u64,
}

/// What became of a mount.
pub struct MountOutcome {
    /// Its ID in the Dockerfile.
    pub id: String,
    /// The number of its files in the cache.
    pub files: u64,
    /// The bytes that hakobi brought in, and how long that took in seconds.
    pub brought_in: Option<(u64, f64)>,
    /// Why it brought nothing in; empty if it did.
    pub why_not: String,
    /// `None` if it was not saved.
    pub saved: Option<MountSave>,
}

struct UsedMount {
    mount: ReachableMount,
    state: Option<MountState>,
    /// Its commands.
    commands: Vec<Digest>,
    /// How long these took, in seconds.
    seconds: Option<f64>,
}

impl UsedMounts {
    /// Returns the mounts of the commands that ran.
    pub fn find(plan: &BuildPlan, progress: &SolveProgress) -> Self {
        let ran: Vec<_> =
            progress.ran.iter().filter(|step| plan.graph.op(step).is_some_and(|op| !cache_mounts(op).is_empty())).collect();
        let found = reachable(plan, ran.iter().copied()).unwrap_or_default();
        let outlooks = outlooks(plan, ran.iter().filter_map(|step| plan.graph.op(step)));
        let mounts = found.into_iter().map(|mount| {
            let commands = commands_of(plan, &mount, ran.iter().copied());
            let seconds = Some(commands.iter().filter_map(|step| progress.seconds.get(step)).sum());
            UsedMount { state: progress.mounts.states.get(&mount.key).copied(), commands, seconds, mount }
        });
        Self::new(mounts.collect(), outlooks, progress)
    }

    /// Returns the mounts of all commands that ran or were to run, after a build that failed.
    pub fn open(plan: &BuildPlan, progress: &SolveProgress) -> Self {
        let all: Vec<&Digest> = plan.open_mounts().into_iter().map(|(op, _)| &op.digest).collect();
        let mounts = reachable(plan, all.iter().copied()).unwrap_or_default().into_iter().map(|mount| {
            // Of commands that did not end, no time says anything.
            let commands = commands_of(plan, &mount, all.iter().copied());
            UsedMount { state: progress.mounts.states.get(&mount.key).copied(), commands, seconds: None, mount }
        });
        Self::new(mounts.collect(), outlooks(plan, plan.open_mounts().into_iter().map(|(op, _)| op)), progress)
    }

    fn new(mounts: Vec<UsedMount>, outlooks: Vec<MountOutlook>, progress: &SolveProgress) -> Self {
        let (times, is_unusable) = (progress.mounts.times.clone(), progress.mounts.is_unusable);
        Self { mounts, times, is_unusable, outlooks, saves: HashMap::new() }
    }

    /// Returns what became of each mount.
    pub fn outcomes(&self) -> Vec<MountOutcome> {
        let state = |key: &String| self.mounts.iter().find(|used| used.mount.key == *key).and_then(|used| used.state);
        let outcome = |outlook: &MountOutlook| {
            let why = outlook.why_not.as_deref();
            let bytes = outlook.carried.as_ref().map_or(0, |carried| carried.saved.bytes);
            let (brought_in, why_not) = match outlook.key.as_ref().and_then(state) {
                Some(MountState::Saved { seconds: Some(seconds), .. }) => (Some((bytes, seconds)), ""),
                Some(MountState::Saved { seconds: None, .. }) => (None, "the daemon has it"),
                Some(MountState::Foreign) => (None, "the daemon has other files in it"),
                Some(MountState::Empty) if self.is_unusable => {
                    (None, why.unwrap_or("the daemon has other files in another mount"))
                }
                Some(MountState::Empty) | None => (None, why.unwrap_or("hakobi failed to bring it in")),
            };
            let saved = outlook.key.as_ref().and_then(|key| self.saves.get(key)).copied();
            let before = outlook.carried.as_ref().map_or(0, |carried| carried.saved.files);
            let files = saved.map_or(before, |saved| saved.files);
            MountOutcome { id: outlook.id.clone(), files, brought_in, why_not: why_not.to_owned(), saved }
        };
        self.outlooks.iter().map(outcome).collect()
    }

    /// Saves them. The image is in its registries by now.
    ///
    /// # Errors
    /// If the cache fails and is required.
    pub async fn save(&mut self, execution: &Execution<'_>, plan: &BuildPlan) -> Result<()> {
        let context = &execution.daemon.context;
        let settings = &context.build.mounts;
        let Some(key) = plan
            .mounts_key
            .as_ref()
            .filter(|_| !self.mounts.is_empty() && settings.mode == MountMode::On && execution.cache.writes())
        else {
            return Ok(());
        };
        let step = context.events.step("[hakobi] saving cache mounts");
        let written = match within(settings.budget, self.saved(execution, plan)).await {
            Ok((record, saves)) => {
                let written = execution.records.records.write([(key.clone(), record)]).await;
                written.map(|()| saves).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match written {
            Ok(saves) => {
                self.saves = saves;
                step.done();
            }
            Err(error) => {
                step.failed(&error);
                let error = Error::new(Kind::Cache, format!("failed to save cache mounts: {error}"));
                execution.records.faults.warn_unsaved(&error)?;
            }
        }
        Ok(())
    }

    /// Returns the record of these mounts, and of those that the build still has and did not use. Their content is in the store.
    async fn saved(&self, execution: &Execution<'_>, plan: &BuildPlan) -> io::Result<(MountsRecord, HashMap<String, MountSave>)> {
        let before = plan.mounts.as_ref().and_then(Option::as_ref);
        // Files that were sent with their own times may be older than what an unused mount has of other content.
        let is_safe = self.times.is_some() || execution.daemon.context.build.mounts.times == FileTimes::Own;
        let kept = before.filter(|_| is_safe).map(|record| record.mounts.clone());
        let mut mounts: BTreeMap<String, CarriedMount> = kept.unwrap_or_default();
        let all: Vec<_> = plan.graph.below(plan.graph.result()).into_iter().map(|op| op.digest.clone()).collect();
        let there = reachable(plan, &all).map_err(io::Error::other)?;
        mounts.retain(|key, _| there.iter().any(|mount| mount.key == *key));
        let reached: Vec<&ReachableMount> = self.mounts.iter().map(|used| &used.mount).collect();
        let new = with_mounts(execution, &reached, async |process| {
            let mut new = Vec::new();
            let mut room = execution.daemon.context.build.mounts.most_total;
            for (place, used) in self.mounts.iter().enumerate() {
                let (carried, save) = self.one(&Recorder { execution, plan }, process, place, used, before, room).await?;
                room = room.saturating_sub(carried.saved.bytes);
                new.push((used.mount.key.clone(), carried, save));
            }
            Ok(new)
        });
        let mut saves = HashMap::new();
        for (key, carried, save) in new.await? {
            saves.insert(key.clone(), save);
            mounts.insert(key, carried);
        }
        let newest = mounts.values().map(|mount| mount.saved.newest).max().unwrap_or_default();
        let times = mount_times::save(execution, plan, self.times.as_ref()).await?;
        Ok((MountsRecord { daemon: execution.daemon.info.id.clone(), times, newest, mounts }, saves))
    }

    async fn one(
        &self,
        recorder: &Recorder<'_>,
        process: &mut Conversation,
        mount: usize,
        used: &UsedMount,
        before: Option<&MountsRecord>,
        room: u64,
    ) -> io::Result<(CarriedMount, MountSave)> {
        let Recorder { execution, plan } = *recorder;
        let began = Instant::now();
        let context = &execution.daemon.context;
        let blobs = execution.cache.blobs();
        let earlier = before.and_then(|record| record.mounts.get(&used.mount.key));
        // Even if the content was not brought in, new content may have the same chunks.
        let list = match earlier {
            Some(earlier) => load(blobs, &earlier.saved).await.ok(),
            None => None,
        };
        let since = match used.state {
            Some(MountState::Saved { at, .. }) => Some(at),
            _ => None,
        };
        process.ask(&Request::List { mount, since }, &[]).await?;
        let mut listed: Vec<ListedEntry> = Vec::new();
        let listing = loop {
            match process.answer().await?.0 {
                Reply::Entries { entries, .. } => listed.extend(entries),
                Reply::Listed { skipped, at, summary, newest, .. } => {
                    if let Some(first) = skipped.first() {
                        let id = shown_id(&used.mount.mount.id);
                        let text = format!(
                            "the cache mount {id} has {} sockets or devices, which are not saved: {first}",
                            skipped.len()
                        );
                        context.events.note(text);
                    }
                    break Listing { entries: listed, summary, at, newest };
                }
                other => return Err(unexpected(&other)),
            }
        };
        let most_bytes = context.build.mounts.most_bytes.min(room);
        let mut parts = Parts { process, mount, gone: Vec::new() };
        let before = earlier.zip(list.as_ref()).map(|(earlier, list)| Earlier { mount: &earlier.saved, list });
        let limits = Limits { most_bytes, most_files: MOST_FILES };
        let saved = save(blobs, before, listing, &mut parts, &limits, seconds_now()).await.map_err(io::Error::other)?;
        tracing::info!(
            id = used.mount.mount.id,
            read = saved.read,
            new = saved.new,
            uploaded = saved.uploaded,
            "saved a cache mount"
        );
        let Saved { mount: saved, dropped_files, dropped_bytes, uploaded, .. } = saved;
        if dropped_files > 0 {
            context.events.note(format!(
                "the cache mount {} is above its limit: {dropped_files} files with {dropped_bytes} bytes that were not used for the longest time are not saved",
                shown_id(&used.mount.mount.id)
            ));
        }
        let mut cost = earlier.map(|earlier| earlier.cost).unwrap_or_default();
        match used.state {
            Some(MountState::Saved { seconds, .. }) => {
                cost = MountCost { bring: seconds.or(cost.bring), warm: used.seconds.or(cost.warm), ..cost };
            }
            Some(MountState::Foreign) => {}
            Some(MountState::Empty) | None => cost.cold = used.seconds.or(cost.cold),
        }
        let below = layers_below(execution, plan, &used.commands).await;
        let save = MountSave { uploaded, seconds: began.elapsed().as_secs_f64(), files: saved.files };
        Ok((CarriedMount { id: used.mount.mount.id.clone(), saved, below, cost }, save))
    }
}

/// Returns those of the commands that use a mount.
fn commands_of<'a>(plan: &BuildPlan, mount: &ReachableMount, commands: impl Iterator<Item = &'a Digest>) -> Vec<Digest> {
    commands.filter(|step| plan.graph.op(step).is_some_and(|op| uses(plan, op, &mount.key))).cloned().collect()
}

/// Returns the layers that these commands saw, without those of base images: of cached states, and of steps that ran, whose records
/// the cache has by now. A layer that is missing here only costs the next build its mount.
async fn layers_below(execution: &Execution<'_>, plan: &BuildPlan, commands: &[Digest]) -> BTreeSet<DiffId> {
    let commands: Vec<_> = commands.iter().filter_map(|step| plan.graph.op(step)).collect();
    let steps = commands.iter().flat_map(|command| steps_below(plan, command));
    let ran = steps.filter(|step| plan.decision.runs(step)).map(|step| Input { step, output: 0 });
    let keys: HashSet<StepKey> = ran
        .filter_map(|state| match plan.keys.state(&state) {
            Key::Known(key) => Some(key),
            _ => None,
        })
        .collect();
    let made = execution.records.read(keys, step_key).await.unwrap_or_default();
    let made = made.into_values().flat_map(|record| record.layers).map(|layer| layer.diff_id);
    let cached = commands.iter().flat_map(|command| cached_layers(plan, command));
    without_bases(plan, made.chain(cached))
}

/// Gets the content of a mount's files from the process.
struct Parts<'a> {
    process: &'a mut Conversation,
    mount: usize,
    gone: Vec<u32>,
}

#[async_trait::async_trait]
impl PartSource for Parts<'_> {
    async fn send(&mut self, files: &[u32]) -> io::Result<()> {
        let files = files.to_vec();
        self.process.ask(&Request::Send { mount: self.mount, files }, &[]).await
    }

    async fn next(&mut self) -> io::Result<Option<SentPart>> {
        match self.process.answer().await? {
            (Reply::Data { file, offset, .. }, data) => Ok(Some(SentPart { file, offset, data })),
            (Reply::Sent { gone, .. }, _) => {
                self.gone = gone;
                Ok(None)
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    fn gone(&self) -> Vec<u32> {
        self.gone.clone()
    }
}
