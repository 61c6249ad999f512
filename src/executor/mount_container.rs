//! Runs hakobi as a process in a container of the daemon that has cache mounts.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::build::Refusal;
use crate::domain::Digest;
use crate::engine::buildkit::{ContainerMount, SolveRequest, Solved, pb};
use crate::event::Events;
use crate::executor::execution::Execution;
use crate::graph::{CacheMount, InvalidGraph, Key, Op, local_source};
use crate::mounts::conversation::Conversation;
use crate::mounts::program::Program;
use crate::mounts::record::mount_key;
use crate::planner::build_plan::BuildPlan;
use crate::planner::compiled_key::machine;

/// The name of the program's directory in the session.
const PROGRAM: &str = "hakobi-program";

/// A cache mount that hakobi can reach.
pub struct ReachableMount {
    /// Its key in the record.
    pub key: String,
    pub mount: CacheMount,
    /// The graph up to the state that it begins with.
    base: Option<pb::Definition>,
}

impl ReachableMount {
    /// Returns a mount as the daemon's solves see it. Returns `None` if hakobi does not carry it: one that begins with files.
    ///
    /// # Errors
    /// If the graph cannot be parsed.
    pub fn new(plan: &BuildPlan, mount: CacheMount) -> Result<Option<Self>, InvalidGraph> {
        if !mount.begins_empty(&plan.graph) {
            return Ok(None);
        }
        let Some(state) = &mount.base else {
            return Ok(Some(Self { key: mount_key(&mount.id, None, &mount.selector), mount, base: None }));
        };
        let Key::Known(base) = plan.keys.state(state) else { return Ok(None) };
        let rewritten = plan.graph.rewritten(state, &HashMap::new(), &HashSet::new())?;
        let key = mount_key(&mount.id, Some(&base.to_string()), &mount.selector);
        Ok(Some(Self { key, base: Some(rewritten.definition), mount }))
    }

    /// Returns where hakobi's containers see it: a path that no other mount has, by which BuildKit 0.8 calls what it makes for it.
    pub fn own_target(&self) -> String {
        format!("/mounts/{}", &Digest::hash(self.key.as_bytes()).hex()[..16])
    }
}

/// Returns the mounts of these commands, each once. Two commands that use one mount see the same files.
///
/// # Errors
/// If the graph cannot be parsed.
pub fn reachable<'a>(
    plan: &BuildPlan,
    commands: impl IntoIterator<Item = &'a Digest>,
) -> Result<Vec<ReachableMount>, InvalidGraph> {
    let mut found: HashMap<String, ReachableMount> = HashMap::new();
    for op in commands.into_iter().filter_map(|step| plan.graph.op(step)) {
        for mount in crate::graph::cache_mounts(op) {
            if let Some(mount) = ReachableMount::new(plan, mount)? {
                found.entry(mount.key.clone()).or_insert(mount);
            }
        }
    }
    let mut found: Vec<ReachableMount> = found.into_values().collect();
    found.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}

/// Returns whether a command has this mount.
pub fn uses(plan: &BuildPlan, command: &Op, key: &str) -> bool {
    let mounts = crate::graph::cache_mounts(command).into_iter();
    mounts.filter_map(|mount| ReachableMount::new(plan, mount).ok().flatten()).any(|mount| mount.key == key)
}

/// Waits for work with cache mounts, at most as long as `--save-budget` says.
///
/// # Errors
/// If it fails, or takes longer.
pub async fn within<T>(budget: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::other(format!("not done after {} seconds (--save-budget)", budget.as_secs()));
    tokio::time::timeout(budget, Box::pin(work)).await.unwrap_or_else(|_| Err(late()))
}

/// Starts hakobi in a container with these mounts, and passes the conversation with it to `work`. The process knows the mounts by
/// their places.
///
/// # Errors
/// If the daemon refuses, the process fails, or `work` fails.
pub async fn with_mounts<T>(
    execution: &Execution<'_>,
    mounts: &[&ReachableMount],
    work: impl AsyncFnOnce(&mut Conversation) -> io::Result<T>,
) -> io::Result<T> {
    let daemon = execution.daemon;
    let own = machine();
    if daemon.info.platform != own {
        let why = format!("this hakobi is for {own}, and the daemon for {}", daemon.info.platform);
        return Err(io::Error::other(why));
    }
    let program = tokio::task::spawn_blocking(Program::collect).await.map_err(io::Error::other)??;
    let session = daemon.side_session(PROGRAM, program.path()).await.map_err(io::Error::other)?;
    let hint = Digest::hash(env!("CARGO_PKG_VERSION").as_bytes()).to_string();
    let source = local_source(PROGRAM, &hint);
    let (command, mut done) = (program.command.clone(), None);
    let slot = &mut done;
    let run = |mut gateway: crate::engine::buildkit::Gateway| async move {
        let mut targets = Vec::new();
        let mut caches = Vec::new();
        let refused = |error: io::Error| Refusal::unknown(error.to_string());
        let root = gateway.graph(source, &[], true).await?;
        let root = root.references.into_values().next().unwrap_or_default();
        for reachable in mounts {
            let base = match &reachable.base {
                Some(base) => gateway.graph(base.clone(), &[], true).await?.references.into_values().next(),
                None => None,
            };
            let target = reachable.own_target();
            targets.push(target.clone());
            let CacheMount { id, sharing, selector, .. } = reachable.mount.clone();
            caches.push(ContainerMount { target, id, sharing, base, selector });
        }
        let mut container = gateway.container(&root, caches).await.map_err(refused)?;
        let args = command.into_iter().chain(["mount-process".to_owned()]).chain(targets).collect();
        let process = container.start(args).await.map_err(refused)?;
        let mut conversation = Conversation::new(process);
        let worked = work(&mut conversation).await;
        let ended = conversation.end().await;
        *slot = Some(worked.and_then(|worked| ended.map(|()| worked)));
        // The end of the build removes it at the latest.
        let _ = container.release().await;
        Ok(Solved::default())
    };
    let built = daemon.buildkit.build(&session, SolveRequest::default(), &Events::none(), run).await;
    match done {
        Some(done) => done,
        None => Err(io::Error::other(built.err().map(|status| status.message().to_owned()).unwrap_or_default())),
    }
}
