//! `hakobi import` and `hakobi export`: between the store and the tarballs of `docker save`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;

use crate::cache::fault::cache_error;
use crate::cache::layout;
use crate::cache::opened::cache_report;
use crate::cache::session::CacheSession;
use crate::docker_archive::{
    self, ArchivedImage, Encoding, Layer, Layers, SavedImage, SavedLayer, Spooled, StoredLayer, spooled,
};
use crate::domain::ImageRef;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::handover::{KnownImage, composed, load_stages};
use crate::output::{Outcome, RunReport};
use crate::push::{Pusher, RepositoryBlobs};
use crate::registry::{Registries, RemoteBlob, Source};
use crate::save::put_index;
use crate::settings::{ArchiveFrom, CacheMode, CacheSettings, Compression, Settings, StoreLocation};
use crate::store::{Blobs, Name, RegistryOptions};
use crate::transfer::ByteStream;

/// Imports the images of an archive into the store, each under its names. `name` is for an image without a name.
///
/// # Errors
/// If the archive cannot be read, has an image without a name, or the store does not accept it.
pub async fn import(
    settings: &Settings,
    from: &ArchiveFrom,
    name: Option<&ImageRef>,
    cache: &CacheSettings,
    compression: Compression,
    events: &Events,
) -> Result<RunReport> {
    let began = Instant::now();
    if cache.mode == CacheMode::ReadOnly {
        return Err(Error::usage("--cache-mode read-only cannot be used with an import, which writes to the cache"));
    }
    let shown = from.to_string();
    let registries = Registries::new(&settings.registries, events.clone());
    let stream = open(from, &registries).await?;
    let directory = crate::transfer::temp_dir(Kind::Cache)?;
    let options = RegistryOptions { scope: cache.scope.clone(), ..RegistryOptions::default() };
    let blobs = Blobs::new(layout::open(&cache.location, &registries, options).await);
    let mut layers = IntoStore {
        blobs: blobs.clone(),
        begun: false,
        compression,
        directory: directory.path().to_owned(),
        new: RepositoryBlobs::default(),
    };
    let step = events.step(format!("[hakobi] reading {shown}"));
    let images = docker_archive::read(stream, &mut layers).await;
    match &images {
        Ok(_) => step.done(),
        Err(error) => step.failed(error),
    }
    let images = images.map_err(|error| match error {
        docker_archive::Error::Keep { .. } => Error::new(Kind::Cache, format!("failed to import {shown}")).because(&error),
        _ => Error::usage(format!("failed to import {shown}")).because(&error),
    })?;
    let mut report = RunReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        outcome: Outcome::Success,
        cache: cache_report(cache),
        ..RunReport::default()
    };
    blobs.store().flush().await.map_err(|error| cache_error(&format!("failed to import {shown}"), &error))?;
    report.layers.saved = layers.new.pushed;
    report.bytes.saved = layers.new.bytes;
    let nameless = images.iter().filter(|image| image.tags.is_empty()).count();
    if nameless > usize::from(name.is_some()) {
        return Err(Error::usage(format!("{shown} has {nameless} images without a name")).hint(
            "name one with `hakobi import FILE NAME:TAG`, or create the tarball with `docker save NAME:TAG` instead of an ID",
        ));
    }
    for image in &images {
        let tags = if image.tags.is_empty() { name.into_iter().collect() } else { image.tags.iter().collect::<Vec<_>>() };
        for tag in tags {
            let new = keep(&registries, cache, image, tag, events).await?;
            report.bytes.saved += new.bytes;
            events.note(format!("imported {tag} into the cache, scope {}", cache.scope));
        }
    }
    report.seconds.save = began.elapsed().as_secs_f64();
    report.seconds.total = report.seconds.save;
    Ok(report)
}

/// Saves an image, whose layers are in the store, under a name.
///
/// # Errors
/// If the store cannot be opened or does not accept it.
async fn keep(
    registries: &Registries,
    cache: &CacheSettings,
    image: &ArchivedImage,
    name: &ImageRef,
    events: &Events,
) -> Result<RepositoryBlobs> {
    let tag = name.tag.as_deref().unwrap_or("latest");
    let failed = |error: Error| Error::new(Kind::Cache, format!("failed to import {name}")).caused_by(error);
    let session = CacheSession::open(cache, &name.repository.path, tag, registries).await;
    let session = session.map_err(|error| cache_error(&format!("failed to open the cache {}", cache.shown), &error))?;
    let to = session.target().ok_or_else(|| Error::new(Kind::Cache, "the cache is read-only"))?;
    let before = load_stages(registries, &to).await.map_err(|error| failed(error.into()))?.images;
    let image = composed(image).map_err(failed)?;
    let stages: Vec<KnownImage> = before.into_iter().filter(|image| image.stage() != Some("")).collect();
    let pusher = Pusher::new(registries.clone(), vec![to.repository.clone()], events.clone());
    let new = put_index(&pusher, &to, &to.repository, &[(String::new(), image)], &stages).await.map_err(failed)?;
    session.flush().await.map_err(|error| cache_error(&format!("failed to import {name}"), &error))?;
    Ok(new)
}

async fn open(from: &ArchiveFrom, registries: &Registries) -> Result<ByteStream> {
    match from {
        ArchiveFrom::Stdin => Ok(Box::pin(tokio::io::stdin())),
        ArchiveFrom::File(path) => match tokio::fs::File::open(path).await {
            Ok(file) => Ok(Box::pin(file)),
            Err(error) => Err(Error::usage(format!("failed to read {}", path.display())).because(&error)),
        },
        ArchiveFrom::S3 { bucket, name } => {
            let what = || format!("failed to read {from}");
            let object: Name = name.parse().map_err(|error| Error::usage(what()).because(&error))?;
            let store = layout::open(&StoreLocation::S3(bucket.clone()), registries, RegistryOptions::default()).await;
            let stream = store.read(&object, 0..u64::MAX).await.map_err(|error| cache_error(&what(), &error))?;
            stream.ok_or_else(|| Error::usage(format!("{from} does not exist")))
        }
    }
}

/// Writes the layers of an archive to the store.
struct IntoStore {
    blobs: Blobs,
    /// Whether the store has its `hakobi.json`. An invalid archive must not create a store.
    begun: bool,
    compression: Compression,
    directory: PathBuf,
    new: RepositoryBlobs,
}

#[async_trait]
impl Layers for IntoStore {
    async fn layer(&mut self, layer: Layer) -> io::Result<StoredLayer> {
        let Spooled { blob, layer } = spooled(layer, Some(self.compression), &self.directory).await?;
        if !self.begun {
            layout::begin(&self.blobs).await.map_err(io::Error::other)?;
            self.begun = true;
        }
        if self.blobs.keep(&blob).await.map_err(io::Error::other)? {
            self.new.pushed += 1;
            self.new.bytes += layer.descriptor.size;
        }
        Ok(layer)
    }
}

/// Writes an image of the store as a tarball that any `docker load` accepts; without a file, to standard output.
///
/// # Errors
/// If the store lacks the image or has damaged blobs, or the file cannot be written. No partial file remains.
pub async fn export(
    settings: &Settings,
    image: &ImageRef,
    file: Option<&Path>,
    cache: &CacheSettings,
    events: &Events,
) -> Result<RunReport> {
    let began = Instant::now();
    let registries = Registries::new(&settings.registries, events.clone());
    let tag = image.tag.as_deref().unwrap_or("latest");
    let session = CacheSession::open(cache, &image.repository.path, tag, &registries).await;
    let session = session.map_err(|error| cache_error(&format!("failed to open the cache {}", cache.shown), &error))?;
    let Some(found) = session.released(&registries).await? else {
        let scopes: Vec<&str> = session.references().map(|(scope, _)| scope).collect();
        return Err(Error::new(Kind::Cache, format!("the cache {} has no {image} (scopes: {})", cache.shown, scopes.join(", ")))
            .hint("list the cached images with `hakobi cache ls`"));
    };
    let home: Arc<dyn Source> = registries.home(&found.repository);
    let layers = found.manifest.layers.iter().zip(&found.diff_ids).map(|(descriptor, diff_id)| SavedLayer {
        diff_id: diff_id.clone(),
        descriptor: descriptor.clone(),
        blob: Some(Arc::new(RemoteBlob::new(Arc::clone(&home), descriptor))),
    });
    let saved = SavedImage {
        tags: vec![image.clone()],
        config: found.config.clone(),
        layers: layers.collect(),
        manifest: Some(found.raw.clone()),
    };
    let failed =
        |error: &(dyn std::error::Error + 'static)| Error::new(Kind::Cache, format!("failed to export {image}")).because(error);
    let directory = crate::transfer::temp_dir(Kind::Cache)?;
    let mut stream =
        docker_archive::write(vec![saved], Encoding::WithoutZstd, directory.path()).map_err(|error| failed(&error))?;
    let step = events.step(format!("[hakobi] exporting {image}"));
    let written = match file {
        None => tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(256 << 10, stream), &mut tokio::io::stdout()).await,
        Some(path) => into_file(&mut stream, path).await,
    };
    match &written {
        Ok(_) => step.done(),
        Err(error) => step.failed(error),
    }
    written.map_err(|error| failed(&error))?;
    let mut report = RunReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        outcome: Outcome::Success,
        cache: cache_report(cache),
        ..RunReport::default()
    };
    report.layers.restored = found.manifest.layers.len() as u64;
    report.bytes.restored = found.manifest.layers.iter().map(|layer| layer.size).sum();
    report.seconds.restore = began.elapsed().as_secs_f64();
    report.seconds.total = report.seconds.restore;
    Ok(report)
}

/// Writes a stream to a file, completely or not at all. Returns the number of bytes.
async fn into_file(stream: &mut ByteStream, path: &Path) -> io::Result<u64> {
    // hakobi writes to a pipe or a device, and never replaces it.
    if tokio::fs::metadata(path).await.is_ok_and(|there| !there.is_file()) {
        let mut file = tokio::fs::OpenOptions::new().write(true).open(path).await?;
        return tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(256 << 10, stream), &mut file).await;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The file gets the mode that the umask allows, like other new files. A temporary file alone would be readable only by its
    // owner.
    let as_others = std::fs::Permissions::from_mode(0o666);
    let temporary = tempfile::Builder::new().prefix(".hakobi-export-").permissions(as_others).tempfile_in(directory)?;
    let (file, temporary) = temporary.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let written = tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(256 << 10, stream), &mut file).await?;
    file.flush().await?;
    temporary.persist(path)?;
    Ok(written)
}
