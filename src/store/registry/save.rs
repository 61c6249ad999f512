//! Saves what a run changed: merges it into the artifact that the registry has now, and checks that no other run has overwritten it.
//!
//! Registries know no "write this only if nothing has changed". So a run merges, uploads, looks whether the tag is as it was read,
//! writes, and looks after a moment whether the tag still has its save. If another run was in between, it merges again.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::artifact::{self, Artifact};
use super::bundle::{Bundle, Changes};
use super::fault::fault;
use super::repository::StoreRepository;
use crate::domain::seconds_now;
use crate::store::{Error, Fault, Result};

/// How often a run merges its changes. After that it gives up: other runs write all the time.
const ATTEMPTS: u32 = 8;

/// How long a run waits at least and at most before it looks whether its save is still there. It is twice the time that the run
/// itself took, which is longer than another run needs from its last look to its write.
const SETTLES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// How long a run tries to remove the manifest that it has replaced.
const TIDIES: Duration = Duration::from_secs(5);

/// Saves the changes of all artifacts.
///
/// # Errors
/// If the registry does not accept one. Its changes are kept for another attempt.
pub async fn save(store: &StoreRepository) -> Result<()> {
    let _one_at_a_time = store.saving.lock().await;
    let tags: Vec<String> = store.state().changes.iter().filter(|(_, all)| !all.is_empty()).map(|(tag, _)| tag.clone()).collect();
    for tag in tags {
        let Some(changes) = store.state().changes.remove(&tag) else { continue };
        if let Err(error) = save_one(store, &tag, &changes).await {
            store.state().changes_of(&tag, &changes.scope).put_back(changes);
            return Err(error);
        }
    }
    Ok(())
}

async fn save_one(store: &StoreRepository, tag: &str, changes: &Changes) -> Result<()> {
    let id = format!("{:016x}", rand::random::<u64>());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            // Runs that met once must not meet again.
            tokio::time::sleep(SETTLES.0 * rand::random_range(1..=2_u32.pow(attempt.min(5)))).await;
        }
        let began = Instant::now();
        let there = if attempt == 0 { known(store, tag) } else { None };
        let there = match there {
            Some(known) => known,
            None => now(store, tag, &changes.scope).await?,
        };
        if there.digest.is_none() && changes.only_removes() {
            return Ok(());
        }
        let mut bundle = (*there.bundle).clone();
        bundle.apply(changes, &id, seconds_now());
        let saved = match artifact::save(&store.client, &store.pace, tag, &mut bundle, &there).await {
            Err(error) if error.fault() == Fault::Missing && store.create().await? => {
                artifact::save(&store.client, &store.pace, tag, &mut bundle, &there).await
            }
            saved => saved,
        };
        let Some(digest) = saved? else {
            tracing::debug!(tag, attempt, "another run has saved its records; merging again");
            continue;
        };
        tokio::time::sleep((began.elapsed() * 2).clamp(SETTLES.0, SETTLES.1)).await;
        let last = store.client.head_manifest(tag).await.map_err(|error| fault(&error))?;
        let is_own = last.is_none_or(|last| last.digest == digest);
        let after = if is_own {
            Artifact { digest: Some(digest), bundle: Arc::new(bundle), is_damaged: false }
        } else {
            artifact::load(&store.client, &store.pace, tag, Bundle::new(&bundle.prefix, &bundle.scope, &bundle.image)).await?
        };
        let is_there = is_own || after.bundle.has_save(&id);
        remember(store, tag, after);
        if is_there {
            // Nobody else names the manifest of an artifact that this one replaced. A manifest that is no artifact may be the user's.
            // Many registries do not let it be removed, and then remove it by a rule of their own.
            if let Some(before) = there.digest.filter(|_| is_own && !there.is_damaged) {
                let _ = tokio::time::timeout(TIDIES, store.client.delete_manifest(&before)).await;
            }
            return Ok(());
        }
        tracing::debug!(tag, attempt, "another run has overwritten the records; merging again");
    }
    Err(overwritten())
}

/// Returns the error of a run that gives up, because other runs write all the time.
pub fn overwritten() -> Error {
    Error::new(Fault::Unreachable, format!("other jobs overwrote the records {ATTEMPTS} times"))
}

/// Returns what the run has read of a tag, or `None` if there was no artifact. [`artifact::save`] notices if it has changed since.
fn known(store: &StoreRepository, tag: &str) -> Option<Artifact> {
    let artifacts = store.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
    let known = artifacts.get(tag).and_then(|cell| cell.get().cloned());
    known.filter(|known| known.digest.is_some() && !known.is_damaged)
}

/// Returns what the tag has now.
async fn now(store: &StoreRepository, tag: &str, scope: &str) -> Result<Artifact> {
    let known = known(store, tag);
    let image = known.as_ref().map_or_else(|| store.image().to_owned(), |known| known.bundle.image.clone());
    let empty = Bundle::new(&store.options.prefix, scope, &image);
    // A registry that denies what it has shown before has not lost it.
    if known.is_some() { artifact::load(&store.client, &store.pace, tag, empty).await } else { store.load(tag, empty).await }
}

/// Replaces what the run has read of a tag.
fn remember(store: &StoreRepository, tag: &str, artifact: Artifact) {
    let cell = Arc::new(OnceCell::new_with(Some(artifact)));
    store.artifacts.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.to_owned(), cell);
}
