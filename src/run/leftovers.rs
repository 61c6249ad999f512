//! What runs left that were killed: temporary folders, and names of hakobi's own in the daemon. The next run removes them.

use std::time::Duration;

use crate::engine::Docker;
use crate::local_registry::is_own_name;
use crate::transfer::{Dead, Scratch};

/// How long that may take before the run goes on.
const WAIT: Duration = Duration::from_secs(20);

/// How old a name of hakobi's own must be in the daemon if nothing is known of its run: longer than any job takes.
const OLD: Duration = Duration::from_secs(48 * 3600);

/// Removes what dead runs of this user left on this machine, and in this daemon. A fault is none of this run's: the next one tries
/// again.
pub async fn clear(docker: &Docker) {
    let found = tokio::task::spawn_blocking(|| Scratch::new().map(|own| own.dead()).unwrap_or_default());
    let dead = found.await.unwrap_or_default();
    let words: Vec<String> = dead.iter().flat_map(|dead| dead.words().to_vec()).collect();
    let docker = docker.clone();
    if words.is_empty() {
        // Only a daemon that lives on has any, and nobody has to wait for that.
        tokio::spawn(async move { names(&docker, &[]).await });
        remove(dead).await;
    } else if tokio::time::timeout(WAIT, names(&docker, &words)).await == Ok(true) {
        remove(dead).await;
    }
}

async fn remove(dead: Vec<Dead>) {
    if !dead.is_empty() {
        let _ = tokio::task::spawn_blocking(move || dead.into_iter().for_each(|dead| drop(dead.remove()))).await;
    }
}

/// Takes away the names with these words, and those of hakobi's own that are old; tells whether the daemon was asked for all.
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
