//! `hakobi cache ls|stat|verify|prune`: lists what a store contains, checks it, and removes what is not used.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cache::fault::cache_error;
use crate::cache::layout;
use crate::domain::Digest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::registry::Registries;
use crate::settings::{CacheCommand, CacheSettings, RegistrySettings};
use crate::store::{self, Blobs, RegistryOptions};
use images::{CachedImage, image_of};
use listed::Listed;
use words::{megabytes, table, time};

mod disks;
mod images;
mod listed;
mod mounts;
pub mod prune;
#[cfg(test)]
mod tests;
mod verify;
mod words;

/// How many objects hakobi looks at at once.
const AT_ONCE: usize = 16;

/// The answer of a command, and its exit code.
#[derive(Debug, Default)]
pub struct Answer {
    /// Text for standard output.
    pub text: String,
    /// Not 0 if something is wrong and was not repaired.
    pub exit_code: u8,
}

/// Runs a command.
///
/// # Errors
/// If the store cannot be read, or has no layout that this program supports.
pub async fn cache(
    command: CacheCommand,
    settings: &CacheSettings,
    registries: &RegistrySettings,
    events: &Events,
) -> Result<Answer> {
    let failed = |error: store::Error| cache_error(&format!("failed to read the cache {}", settings.shown), &error);
    let registries = Registries::new(registries, events.clone());
    // It must be told which scope is its own, though the commands look at all.
    let options = RegistryOptions { scope: settings.scope.clone(), ..RegistryOptions::default() };
    let store = layout::open(&settings.location, &registries, options).await;
    let mends = command == CacheCommand::Verify { repair: true };
    if mends && layout::Layout::read(&*store).await.map_err(failed)? == layout::Layout::Unreadable {
        layout::begin(&Blobs::new(Arc::clone(&store))).await.map_err(failed)?;
    }
    if !layout::is_there(&*store).await.map_err(failed)? {
        return Err(Error::new(Kind::Cache, format!("no cache at {}", settings.shown))
            .hint("create one with `hakobi build --cache …`, or name another place with --cache"));
    }
    answer(command, &Blobs::new(store), events).await.map_err(failed)
}

/// Answers a command about the content of a store.
async fn answer(command: CacheCommand, blobs: &Blobs, events: &Events) -> store::Result<Answer> {
    let text = match command {
        CacheCommand::Prune(settings) => prune::prune(blobs, &settings, events).await?,
        CacheCommand::List { json } => {
            let (images, _) = images(blobs).await?;
            if json { serde_json::to_string_pretty(&images).unwrap_or_default() + "\n" } else { list(&images) }
        }
        CacheCommand::Stat { json } => {
            let (images, listed) = images(blobs).await?;
            stat(&images, &listed, json)
        }
        CacheCommand::Verify { repair } => {
            let (images, listed) = images(blobs).await?;
            let verified = verify::verify(blobs, &images, &listed, repair, events).await?;
            let is_wrong = verified.is_wrong && !repair;
            return Ok(Answer { text: verified.text, exit_code: if is_wrong { Kind::Cache.exit_code() } else { 0 } });
        }
    };
    Ok(Answer { text, exit_code: 0 })
}

/// Returns the cached images of all scopes, and what the store has.
async fn images(blobs: &Blobs) -> store::Result<(Vec<CachedImage>, Listed)> {
    let entries = blobs.store().list("").await?;
    let listed = Listed::new(&entries);
    let pointers = entries.into_iter().filter(|entry| entry.name.as_str().starts_with("refs/"));
    let images = stream::iter(pointers).map(|entry| image_of(blobs, &listed, entry));
    let mut images: Vec<CachedImage> = images.buffer_unordered(AT_ONCE).try_collect().await?;
    images.sort_by(|a, b| (&a.scope, &a.image).cmp(&(&b.scope, &b.image)));
    Ok((images, listed))
}

fn list(images: &[CachedImage]) -> String {
    let missing = |blobs: &[Digest]| match blobs.len() {
        0 => String::new(),
        missing => format!(" ({missing} blobs missing)"),
    };
    let mut rows = vec![["SCOPE", "IMAGE", "STAGES", "LAYERS", "SIZE", "WRITTEN"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image.scope.clone(),
            image.image.clone(),
            image.stages.to_string(),
            format!("{}{}", image.layers, missing(&image.missing)),
            megabytes(image.bytes),
            time(image.written),
        ]
    }));
    let mut text = table(&rows);
    let mut mounts = vec![["SCOPE", "IMAGE", "CACHE MOUNT", "FILES", "SIZE", "PACKED"].map(str::to_owned)];
    for (image, mount) in images.iter().flat_map(|image| image.mounts.all.iter().map(move |mount| (image, mount))) {
        mounts.push([
            image.scope.clone(),
            image.image.clone(),
            mount.id.clone(),
            mount.files.to_string(),
            megabytes(mount.bytes),
            format!("{}{}", megabytes(mount.packed), missing(&mount.missing)),
        ]);
    }
    let mut disks = vec![["SCOPE", "IMAGE", "DAEMON'S DISK", "BUILDS", "PACKED"].map(str::to_owned)];
    for (image, disk) in images.iter().filter_map(|image| Some((image, image.disk.as_ref()?))) {
        disks.push([
            image.scope.clone(),
            image.image.clone(),
            format!("Docker {}", disk.docker),
            disk.builds.to_string(),
            format!("{}{}", megabytes(disk.packed), missing(&disk.missing)),
        ]);
    }
    if mounts.len() > 1 {
        text += &format!("\n{}", table(&mounts));
    }
    if disks.len() > 1 {
        text += &format!("\n{}", table(&disks));
    }
    text
}

fn stat(images: &[CachedImage], listed: &Listed, json: bool) -> String {
    let total: u64 = listed.sizes.values().sum();
    let used: HashSet<&Digest> = images
        .iter()
        .flat_map(|image| image.blobs.iter().chain(&image.mounts.blobs).chain(image.disk.iter().flat_map(|disk| &disk.blobs)))
        .filter(|digest| listed.sizes.contains_key(digest))
        .collect();
    let used_bytes = listed.bytes(used.iter().copied());
    let scopes: BTreeSet<&str> = images.iter().map(|image| &*image.scope).collect();
    let mounts: Vec<_> = images.iter().flat_map(|image| &image.mounts.all).collect();
    let mount_bytes: u64 = mounts.iter().map(|mount| mount.bytes).sum();
    let packed = listed.bytes(mounts.iter().flat_map(|mount| mount.saved.blobs()).map(|blob| &blob.digest));
    let disks: Vec<_> = images.iter().filter_map(|image| image.disk.as_ref()).collect();
    let disk_bytes = listed.bytes(disks.iter().flat_map(|disk| &disk.blobs));
    if json {
        let out = serde_json::json!({
            "blobs": listed.sizes.len(), "bytes": total, "used_blobs": used.len(), "used_bytes": used_bytes,
            "images": images.len(), "scopes": scopes,
            "mounts": mounts.len(), "mount_bytes": mount_bytes, "mount_packed_bytes": packed,
            "disks": disks.len(), "disk_bytes": disk_bytes,
        });
        return serde_json::to_string_pretty(&out).unwrap_or_default() + "\n";
    }
    let mounts = match mounts.len() {
        0 => String::new(),
        count => format!("{count} cache mounts with {} of files, packed in {}\n", megabytes(mount_bytes), megabytes(packed)),
    };
    let disks = match disks.len() {
        0 => String::new(),
        count => format!("{count} disks of hakobi's own daemons, {}\n", megabytes(disk_bytes)),
    };
    format!(
        "{} images in {} scopes\n{} blobs, {}\n{} of them, {}, belong to an image\n{mounts}{disks}",
        images.len(),
        scopes.len(),
        listed.sizes.len(),
        megabytes(total),
        used.len(),
        megabytes(used_bytes)
    )
}
