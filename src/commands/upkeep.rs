//! `hakobi cache ls|stat|verify`: lists what a store contains, and checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::cache::fault::cache_error;
use crate::cache::layout;
use crate::domain::{Descriptor, Digest, RawManifest};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::handover::STAGE_ANNOTATION;
use crate::registry::Registries;
use crate::settings::{CacheCommand, CacheSettings, RegistrySettings};
use crate::store::{self, Blobs, Entry, Name, RegistryOptions, read_small};

/// Largest manifest or pointer, in bytes.
const SMALL: u64 = 4 << 20;

/// How many objects hakobi looks at at once.
const AT_ONCE: usize = 16;

/// How many blobs `verify` reads at once. hakobi downloads and hashes their bytes.
const VERIFIED_AT_ONCE: usize = 6;

/// The answer of a command, and its exit code.
#[derive(Debug, Default)]
pub struct Answer {
    /// Text for standard output.
    pub text: String,
    /// Not 0 if something is wrong and was not repaired.
    pub exit_code: u8,
}

/// A pointer, and the image that it leads to.
#[derive(Debug, Serialize)]
struct CachedImage {
    scope: String,
    image: String,
    digest: String,
    /// Number of stages that are saved beside the image.
    stages: usize,
    layers: usize,
    /// The size of all its blobs, in bytes.
    bytes: u64,
    /// When the pointer was written, in seconds of the Unix epoch.
    written: u64,
    #[serde(skip)]
    name: Option<Name>,
    #[serde(skip)]
    blobs: BTreeSet<Digest>,
    /// Blobs that the image needs and the store lacks.
    missing: Vec<Digest>,
}

#[derive(Deserialize)]
struct Pointer {
    digest: Digest,
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
    let blobs = Blobs::new(store);
    let entries = blobs.store().list("").await.map_err(failed)?;
    let sizes: BTreeMap<Digest, u64> = entries.iter().filter_map(|entry| Some((entry.name.digest()?, entry.size))).collect();
    let pointers = entries.iter().filter(|entry| entry.name.as_str().starts_with("refs/"));
    let mut images: Vec<CachedImage> = stream::iter(pointers.cloned().collect::<Vec<_>>())
        .map(|entry| followed(&blobs, &sizes, entry))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    images.sort_by(|a, b| (&a.scope, &a.image).cmp(&(&b.scope, &b.image)));
    match command {
        CacheCommand::List { json: true } => {
            Ok(Answer { text: serde_json::to_string_pretty(&images).unwrap_or_default() + "\n", exit_code: 0 })
        }
        CacheCommand::List { json: false } => Ok(Answer { text: table(&images), exit_code: 0 }),
        CacheCommand::Stat { json } => Ok(Answer { text: stat(&images, &sizes, json), exit_code: 0 }),
        CacheCommand::Verify { repair } => verify(&blobs, &images, &sizes, repair, events).await.map_err(failed),
    }
}

/// Follows a pointer to all its blobs.
async fn followed(blobs: &Blobs, sizes: &BTreeMap<Digest, u64>, entry: Entry) -> CachedImage {
    let (scope, image) = entry.name.pointed().unwrap_or_else(|| (String::new(), entry.name.to_string()));
    let mut image = CachedImage {
        scope,
        image,
        digest: String::new(),
        stages: 0,
        layers: 0,
        bytes: 0,
        written: entry.written,
        name: Some(entry.name.clone()),
        blobs: BTreeSet::new(),
        missing: Vec::new(),
    };
    let Some(pointer) = small(blobs, &entry.name).await.and_then(|bytes| serde_json::from_slice::<Pointer>(&bytes).ok()) else {
        return image;
    };
    image.digest = pointer.digest.to_string();
    let mut layers = BTreeSet::new();
    let mut open = vec![pointer.digest];
    while let Some(digest) = open.pop() {
        if !image.blobs.insert(digest.clone()) {
            continue;
        }
        let Some(bytes) = small(blobs, &Name::blob(&digest)).await else { continue };
        let Some(media_type) = RawManifest::media_type_of(&bytes) else { continue };
        let raw = RawManifest { media_type, bytes };
        if let Ok(index) = raw.index()
            && raw.is_index()
        {
            let stage = |child: &&Descriptor| child.annotations.get(STAGE_ANNOTATION).is_some_and(|stage| !stage.is_empty());
            image.stages += index.manifests.iter().filter(stage).count();
            open.extend(index.manifests.into_iter().map(|child| child.digest));
        } else if let Ok(manifest) = raw.manifest() {
            image.blobs.insert(manifest.config.digest);
            layers.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
            image.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
    }
    image.layers = layers.len();
    image.bytes = image.blobs.iter().filter_map(|digest| sizes.get(digest)).sum();
    image.missing = image.blobs.iter().filter(|digest| !sizes.contains_key(digest)).cloned().collect();
    image
}

/// Reads a small object. Returns `None` if it is not readable: `ls` shows it as missing, and `verify` as damaged.
async fn small(blobs: &Blobs, name: &Name) -> Option<bytes::Bytes> {
    match name.digest() {
        Some(digest) => blobs.read(&digest, SMALL).await.ok().flatten(),
        None => read_small(blobs.store(), name, SMALL).await.ok().flatten(),
    }
}

fn table(images: &[CachedImage]) -> String {
    let mut rows = vec![["SCOPE", "IMAGE", "STAGES", "LAYERS", "SIZE", "WRITTEN"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        let missing = if image.missing.is_empty() { String::new() } else { format!(" ({} blobs missing)", image.missing.len()) };
        [
            image.scope.clone(),
            image.image.clone(),
            image.stages.to_string(),
            format!("{}{missing}", image.layers),
            megabytes(image.bytes),
            time(image.written),
        ]
    }));
    let widths: Vec<usize> = (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

fn stat(images: &[CachedImage], sizes: &BTreeMap<Digest, u64>, json: bool) -> String {
    let total: u64 = sizes.values().sum();
    let used: BTreeSet<&Digest> =
        images.iter().flat_map(|image| &image.blobs).filter(|digest| sizes.contains_key(digest)).collect();
    let used_bytes: u64 = used.iter().filter_map(|digest| sizes.get(*digest)).sum();
    let scopes: BTreeSet<&str> = images.iter().map(|image| &*image.scope).collect();
    if json {
        let out = serde_json::json!({
            "blobs": sizes.len(), "bytes": total, "used_blobs": used.len(), "used_bytes": used_bytes,
            "images": images.len(), "scopes": scopes,
        });
        return serde_json::to_string_pretty(&out).unwrap_or_default() + "\n";
    }
    format!(
        "{} images in {} scopes\n{} blobs, {}\n{} of them, {}, belong to an image\n",
        images.len(),
        scopes.len(),
        sizes.len(),
        megabytes(total),
        used.len(),
        megabytes(used_bytes)
    )
}

/// Reads and checks every blob.
async fn verify(
    blobs: &Blobs,
    images: &[CachedImage],
    sizes: &BTreeMap<Digest, u64>,
    repair: bool,
    events: &Events,
) -> store::Result<Answer> {
    let step = events.step("[hakobi] reading every blob");
    let checked: Vec<store::Result<Option<Digest>>> = stream::iter(sizes.clone())
        .map(|(digest, size)| async move { Ok((!is_right(blobs, &digest, size).await?).then_some(digest)) })
        .buffer_unordered(VERIFIED_AT_ONCE)
        .collect()
        .await;
    let mut damaged = BTreeSet::new();
    for checked in checked {
        match checked {
            Ok(found) => damaged.extend(found),
            Err(error) => {
                step.failed(&error);
                return Err(error);
            }
        }
    }
    step.done();
    let lacking: Vec<&CachedImage> = images
        .iter()
        .filter(|image| {
            image.digest.is_empty() || !image.missing.is_empty() || image.blobs.iter().any(|blob| damaged.contains(blob))
        })
        .collect();
    let mut text = String::new();
    for digest in &damaged {
        let _ = writeln!(text, "damaged: {digest}");
    }
    for image in &lacking {
        let _ = writeln!(text, "incomplete: {} in scope {}", image.image, image.scope);
    }
    let wrong = !damaged.is_empty() || !lacking.is_empty();
    if repair {
        // Pointers go first, so that no reader finds a pointer whose blobs are gone.
        for image in &lacking {
            if let Some(name) = &image.name {
                blobs.store().delete(name).await?;
            }
        }
        for digest in &damaged {
            blobs.remove(digest).await?;
        }
        blobs.store().flush().await?;
        if wrong {
            text.push_str("removed; the next build runs the missing steps and saves them again\n");
        }
    }
    let _ = writeln!(
        text,
        "{} blobs read, {} damaged; {} of {} images complete",
        sizes.len(),
        damaged.len(),
        images.len() - lacking.len(),
        images.len()
    );
    Ok(Answer { text, exit_code: if wrong && !repair { Kind::Cache.exit_code() } else { 0 } })
}

async fn is_right(blobs: &Blobs, digest: &Digest, size: u64) -> store::Result<bool> {
    let Some(mut stream) = blobs.open(digest, Some(size), 0).await? else {
        // The blob was deleted meanwhile. A registry's artifact may name a blob that the registry has lost.
        return Ok(blobs.store().repository().is_none());
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(_) if blobs.damaged().contains(digest) => return Ok(false),
            Err(error) => {
                return Err(store::Error::new(store::Fault::Unreachable, format!("failed to read the blob {digest}: {error}")));
            }
        }
    }
}

fn megabytes(bytes: u64) -> String {
    // Tenths of a megabyte, in whole numbers.
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

fn time(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}
