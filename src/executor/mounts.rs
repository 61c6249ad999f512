//! Brings the content of cache mounts into the daemon, before the commands that use them run.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use crate::error::Result;
use crate::executor::daemon_results::{self, DaemonResults};
use crate::executor::execution::Execution;
use crate::executor::mount_container::{ReachableMount, reachable, with_mounts, within};
use crate::executor::mount_outlook::other_layers;
use crate::executor::mount_state::{MountProgress, MountState};
use crate::executor::progress::SolveProgress;
use crate::executor::{mount_times, prefetch};
use crate::graph::{Input, Op};
use crate::mounts::conversation::Conversation;
use crate::mounts::protocol::{LARGEST_PAYLOAD, MOST_ENTRIES, Reply, Request};
use crate::mounts::record::{CarriedMount, MountsRecord, shown_id};
use crate::mounts::{PartSink, load, stream};
use crate::plan::is_automatic;
use crate::planner::build_plan::BuildPlan;
use crate::settings::FileTimes;

/// Brings in the saved content of the mounts of commands that run for these states, and settles the times of the context. A fault costs
/// the content, and not the build.
///
/// # Errors
/// If there is a fault, and the cache is required.
pub async fn bring_in(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    states: &[&Input],
    progress: &mut SolveProgress,
) -> Result<()> {
    // A command may only see a carried mount beside files with the right times.
    let Some(Some(record)) = plan.mounts.as_ref().filter(|_| plan.knows_sources()) else { return Ok(()) };
    // BuildKit empties the mounts of commands that ignore its cache (`--no-cache`), before it runs them.
    let open = |op: &&Op| plan.decision.runs(&op.digest) && !progress.solved.contains(&op.digest) && !op.ignores_cache;
    let all = plan.graph.below(plan.graph.result()).into_iter().filter(open).map(|op| &op.digest);
    let now = states.iter().flat_map(|state| plan.graph.below(state)).filter(open).map(|op| &op.digest);
    let (Ok(all), Ok(now)) = (reachable(plan, all), reachable(plan, now)) else { return Ok(()) };
    let is_now = |mount: &ReachableMount| now.iter().any(|one| one.key == mount.key);
    let is_new = |mount: &ReachableMount| match progress.mounts.states.get(&mount.key) {
        None => true,
        Some(state) => {
            *state == MountState::Empty && !progress.mounts.is_unusable && is_now(mount) && record.mounts.contains_key(&mount.key)
        }
    };
    // At the first time all mounts, because the times of the context depend on all of them.
    let wanted: Vec<&ReachableMount> = all.iter().filter(|mount| is_new(mount)).collect();
    if now.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let images = prefetch::images(execution, plan, states, progress);
    let results = daemon_results::look(execution, plan, progress, &wanted).await;
    let brought_in = bring_in_wanted(execution, plan, record, &wanted, is_now, results, &mut progress.mounts);
    let (brought_in, ()) = tokio::join!(brought_in, prefetch::pull(execution, images));
    brought_in.into_iter().try_for_each(|fault| execution.records.faults.warn_of_mounts(fault))
}

/// Looks at these mounts, settles the times of the context, and fills the mounts that commands need now. Returns what went wrong.
async fn bring_in_wanted(
    execution: &Execution<'_>,
    plan: &BuildPlan,
    record: &MountsRecord,
    wanted: &[&ReachableMount],
    is_now: impl Fn(&ReachableMount) -> bool,
    results: DaemonResults,
    mounts: &mut MountProgress,
) -> Vec<String> {
    let mut faults = Vec::new();
    let context = &execution.daemon.context;
    let step = context.events.step("[hakobi] bringing in cache mounts");
    // Settled once: the context must not be sent with two times. Until a time is chosen, no mount is right.
    let settled = std::mem::replace(&mut mounts.is_settled, true) || context.build.mounts.times == FileTimes::Own;
    mounts.is_unusable |= !settled;
    let done = with_mounts(execution, wanted, async |process| {
        for (place, mount) in wanted.iter().enumerate() {
            let saved = record.mounts.get(&mount.key);
            let mut state = look(process, place, saved, record, &execution.daemon.info.id).await?;
            if results.several.contains(&mount.key) {
                state = MountState::Foreign;
            }
            mounts.states.insert(mount.key.clone(), state);
        }
        if !settled {
            // The record says nothing of what is in such a mount, so no chosen time would be right. Tools with automatic mounts do not
            // go by times.
            let declared = wanted.iter().filter(|mount| !is_automatic(&mount.mount.id));
            let foreign = declared.into_iter().find(|mount| mounts.states.get(&mount.key) == Some(&MountState::Foreign));
            match foreign {
                Some(mount) => context.events.note(format!(
                    "not bringing in cache mounts: the daemon has other files in {}, and keeps them",
                    shown_id(&mount.mount.id)
                )),
                None => {
                    mounts.times = mount_times::choose(execution, plan, record).await;
                    if mounts.times.is_none() {
                        let why = "they have files with times of the far future, later than any that a changed file could get";
                        context.events.note(format!("not bringing in cache mounts: {why}"));
                    }
                }
            }
            mounts.times.iter().for_each(|times| mount_times::send(execution, times));
            mounts.is_unusable = mounts.times.is_none();
        }
        if !mounts.is_unusable {
            mounts.afresh.extend(results.afresh);
        }
        for (place, mount) in wanted.iter().enumerate().filter(|(_, mount)| !mounts.is_unusable && is_now(mount)) {
            let Some(saved) = record.mounts.get(&mount.key) else { continue };
            let own = results.unfit.get(&mount.key).cloned();
            if let Some(why) = other_layers(plan, &mount.key, saved).or(own) {
                context.events.note(format!("the cache mount {} stays empty: {why}", shown_id(&saved.id)));
                continue;
            }
            if saved.cost.is_loss() {
                tracing::info!(id = saved.id, cost = ?saved.cost, "a cache mount stays empty: it took longer to bring in than it saved");
                continue;
            }
            if mounts.states.get(&mount.key) == Some(&MountState::Empty) {
                let at = Instant::now();
                match fill(execution, process, place, saved).await? {
                    Ok(filled) => {
                        let seconds = Some(at.elapsed().as_secs_f64());
                        mounts.states.insert(mount.key.clone(), MountState::Saved { at: filled, seconds });
                    }
                    Err(why) => faults.push(format!("the cache mount {} stays empty: {why}", shown_id(&saved.id))),
                }
            }
        }
        Ok(())
    });
    match within(context.build.mounts.budget, done).await {
        Ok(()) => step.done(),
        Err(error) => {
            step.failed(&error);
            faults.push(format!("failed to bring in cache mounts: {error}"));
        }
    }
    faults
}

/// Asks what a mount has.
async fn look(
    process: &mut Conversation,
    mount: usize,
    saved: Option<&CarriedMount>,
    record: &MountsRecord,
    daemon: &str,
) -> io::Result<MountState> {
    process.ask(&Request::Look { mount }, &[]).await?;
    match process.answer().await?.0 {
        Reply::Looked { is_empty: true, .. } => Ok(MountState::Empty),
        // Only on the daemon that has saved it: nothing else tells whether a file has changed since.
        Reply::Looked { summary, .. } => Ok(match saved {
            Some(carried) if record.daemon == daemon && carried.saved.summary == summary => {
                MountState::Saved { at: carried.saved.at, seconds: None }
            }
            _ => MountState::Foreign,
        }),
        other => Err(unexpected(&other)),
    }
}

/// Fills an empty mount. Returns the kernel's time after that, or why the mount stays empty.
async fn fill(
    execution: &Execution<'_>,
    process: &mut Conversation,
    mount: usize,
    carried: &CarriedMount,
) -> io::Result<std::result::Result<i64, String>> {
    let blobs = execution.cache.blobs();
    let list = match load(blobs, &carried.saved).await {
        Ok(list) => list,
        Err(error) => return Ok(Err(error.to_string())),
    };
    process.ask(&Request::Fill { mount }, &[]).await?;
    for files in list.files.chunks(MOST_ENTRIES) {
        let entries = files.iter().map(|file| file.entry.clone()).collect();
        process.ask(&Request::Entries { mount, entries }, &[]).await?;
    }
    let streamed = stream(blobs, &list, &mut Parts { process, mount }).await;
    let last = if streamed.is_ok() { Request::Finish { mount } } else { Request::Abandon { mount } };
    process.ask(&last, &[]).await?;
    match process.answer().await?.0 {
        Reply::Filled { at, .. } => Ok(Ok(at)),
        Reply::Failed { why, .. } => Ok(Err(streamed.err().map_or(why, |error| error.to_string()))),
        other => Err(unexpected(&other)),
    }
}

/// Returns the error for an answer to another question.
pub fn unexpected(reply: &Reply) -> io::Error {
    io::Error::other(format!("the process in the container gave an unexpected answer: {reply:?}"))
}

/// Passes parts of files to the process.
struct Parts<'a> {
    process: &'a mut Conversation,
    mount: usize,
}

#[async_trait::async_trait]
impl PartSink for Parts<'_> {
    async fn part(&mut self, file: u32, offset: u64, data: Bytes) -> io::Result<()> {
        let mut offset = offset;
        for part in data.chunks(LARGEST_PAYLOAD) {
            self.process.ask(&Request::Data { mount: self.mount, file, offset }, part).await?;
            offset += part.len() as u64;
        }
        Ok(())
    }
}
