//! Removes what killed runs have left: temporary directories, and hakobi's own names in the daemon.

use std::time::Duration;

use crate::engine::Docker;
use crate::local_registry::is_own_name;
use crate::transfer::{Dead, Scratch};

/// How long this may take before the run goes on.
const WAIT: Duration = Duration::from_secs(20);

/// The minimum age of an own name in the daemon if its run is not known: longer than any job takes.
const OLD: Duration = Duration::from_secs(48 * 3600);

/// Removes what dead runs of this user left on this machine and in this daemon. A fault does not affect this run: the next run
/// tries again.
pub async fn clear(docker: &Docker) {
    let dead = dead_runs().await;
    let words: Vec<String> = dead.iter().flat_map(|dead| dead.words().to_vec()).collect();
    let docker = docker.clone();
    if words.is_empty() {
        // Only a long-lived daemon has old names, and the run need not wait for their removal.
        tokio::spawn(async move { names(&docker, &[]).await });
        remove(dead).await;
    } else if tokio::time::timeout(WAIT, names(&docker, &words)).await == Ok(true) {
        remove(dead).await;
    }
}

/// Removes what dead runs left on this machine and have no names in a daemon for, in a run that does not ask the machine's daemon.
pub async fn clear_without_daemon() {
    remove(dead_runs().await.into_iter().filter(|dead| dead.words().is_empty()).collect()).await;
}

async fn dead_runs() -> Vec<Dead> {
    let found = tokio::task::spawn_blocking(|| Scratch::new().map(|own| own.dead()).unwrap_or_default());
    found.await.unwrap_or_default()
}

async fn remove(dead: Vec<Dead>) {
    if !dead.is_empty() {
        let _ = tokio::task::spawn_blocking(move || dead.into_iter().for_each(|dead| drop(dead.remove()))).await;
    }
}

/// Removes the names with these words, and own names that are old. Returns whether the daemon has removed all of them.
async fn names(docker: &Docker, words: &[String]) -> bool {
    let Ok(all) = docker.names().await else { return false };
    let mut done = true;
    for name in all.into_iter().filter(|name| is_own_name(&name.repository)) {
        let is_dead = name.repository.path.split('/').any(|part| words.iter().any(|word| word == part));
        if is_dead || docker.named_for(&name).await.is_some_and(|age| age > OLD) {
            done &= docker.untag(&name).await.is_ok();
        }
    }
    done
}
