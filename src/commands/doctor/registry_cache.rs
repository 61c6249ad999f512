//! Checks a cache in a registry. It writes nothing: a test object would be a tag among the user's images.

use super::Found;
use crate::cache::layout;
use crate::error::Kind;
use crate::registry::{self, Registries};
use crate::settings::{CacheMode, CacheSettings, RegistryCacheSettings};
use crate::store::{Fault, RegistryOptions};

/// Runs all checks of a cache in this repository.
pub(super) async fn tried(
    registries: &Registries,
    cache: &CacheSettings,
    location: &RegistryCacheSettings,
) -> Vec<(&'static str, Found)> {
    let read = layout::open(&cache.location, registries, RegistryOptions::default()).await;
    let state = match layout::is_there(&*read).await {
        Ok(true) => "there",
        Ok(false) => "empty or not yet created",
        // A build reads its own tags by name, and lists none.
        Err(error) if error.fault() == Fault::Denied && is_readable(registries, location).await => "its tags cannot be listed",
        Err(error) => {
            let mend = error.hint_text().unwrap_or("allow the job to pull from the repository").to_owned();
            return vec![("cache", Found::Wrong(format!("failed to read {}: {error}", cache.shown), mend, Kind::Cache))];
        }
    };
    let access = registries.repository(&location.repository).push_access(None).await;
    let is_writable = access.is_ok();
    let mut all = vec![("cache", found(cache, state, access))];
    all.extend(trusted(cache).filter(|_| is_writable).map(|found| ("scope", found)));
    all
}

async fn is_readable(registries: &Registries, location: &RegistryCacheSettings) -> bool {
    registries.repository(&location.repository).head_manifest("hakobi-cache-doctor").await.is_ok()
}

fn found(cache: &CacheSettings, state: &str, access: registry::Result<registry::PushAccess>) -> Found {
    let (shown, read_only) = (&cache.shown, cache.mode == CacheMode::ReadOnly);
    match access {
        // With filters for exclusion they may move.
        Ok(access) if access.immutable_tags => Found::Doubtful(
            format!("the repository of {shown} does not allow tags to move, so builds can save only if hakobi-cache-* is excluded from that"),
            "exclude hakobi-cache-*, or use a repository with mutable tags for the cache: --cache oci://HOST/REPOSITORY or --cache-repository"
                .to_owned(),
        ),
        Ok(_) if read_only => Found::Doubtful(
            format!("{shown} is writable, although the cache mode is read-only"),
            "give jobs of pull requests a role that can only pull: --cache-mode does not stop their other programs from writing what main reads"
                .to_owned(),
        ),
        Ok(_) => Found::Right(format!("{shown} ({state}) is readable and writable")),
        Err(error) if read_only && matches!(error.kind, registry::Kind::Denied | registry::Kind::Unauthorized) => {
            Found::Right(format!("{shown} ({state}) is readable, but not writable"))
        }
        Err(error) => {
            let mend = error.hint().unwrap_or_else(|| "allow the job to push to the repository".to_owned());
            Found::Wrong(format!("failed to write to {shown}: {error}"), mend, Kind::Cache)
        }
    }
}

/// Warns if a pull request can write what main's builds trust. Returns `None` if this is no such job.
fn trusted(cache: &CacheSettings) -> Option<Found> {
    let number = cache.scope.strip_prefix("pr-")?;
    let trusted = cache.fallbacks.first()?;
    if cache.mode == CacheMode::ReadOnly || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Found::Doubtful(
        format!(
            "a registry's permissions are for whole repositories: this pull request can write the scope {trusted}, which main's builds trust"
        ),
        "use --cache-mode read-only and a role that can only pull".to_owned(),
    ))
}
