//! Takes an image in the form of `docker save`, from a daemon that cannot push to this host. It stores only new layers.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use super::compose::PreparedImage;
use super::intake::{Blob, Intake, State};
use super::tag::TAG;
use crate::docker_archive::{self, ArchivedImage, Format, Layer, Layers, Spooled, StoredLayer, spooled};
use crate::domain::{Descriptor, DiffId, Digest, ImageConfig, ImageRef, Manifest, RawManifest, media_type};
use crate::error::{Error, Result};
use crate::transfer::{ByteStream, Identity};

impl Intake {
    /// Takes the image that the archive has under `reference`, as if the daemon had pushed it under `name`.
    ///
    /// # Errors
    /// If the archive breaks off, cannot be read, or lacks the image.
    pub async fn take_archive(&self, archive: ByteStream, reference: &ImageRef, name: &str) -> Result<()> {
        let mut layers = NewLayers { intake: self.clone(), directory: self.inner().directory().to_owned() };
        let images = docker_archive::read(archive, &mut layers)
            .await
            .map_err(|error| Error::push("failed to read the archive that the daemon saved").because(&error))?;
        let image = images
            .into_iter()
            .find(|image| image.tags.contains(reference))
            .ok_or_else(|| Error::push(format!("the daemon's archive has no image {reference}")))?;
        self.took(image, name)
    }

    fn took(&self, image: ArchivedImage, name: &str) -> Result<()> {
        let raw = manifest(&image).map_err(|error| Error::push("failed to write the image's manifest").because(&error))?;
        let mut state = self.inner().state();
        state.configs.insert(Digest::hash(&image.config), image.config);
        let own = state.manifests.entry(name.to_owned()).or_default();
        own.insert(raw.digest().to_string(), raw.clone());
        own.insert(TAG.to_owned(), raw);
        Ok(())
    }
}

/// Returns the manifest that the daemon would have pushed: a containerd store has one; for an overlay2 daemon, hakobi makes
/// Docker's.
fn manifest(image: &ArchivedImage) -> serde_json::Result<RawManifest> {
    let compressed = |manifest: &Manifest| {
        manifest.layers.iter().any(|layer| layer.media_type.contains('+') || layer.media_type.ends_with("gzip"))
    };
    let own = image.manifest.as_ref().filter(|raw| raw.manifest().is_ok_and(|manifest| compressed(&manifest)));
    let same = |manifest: &Manifest| {
        manifest.layers.iter().map(|layer| &layer.digest).eq(image.layers.iter().map(|layer| &layer.digest))
    };
    if let Some(raw) = own.filter(|raw| raw.manifest().is_ok_and(|manifest| same(&manifest))) {
        return Ok(raw.clone());
    }
    let family = own.map_or(media_type::DOCKER_MANIFEST, |raw| &*raw.media_type);
    let config = if family == media_type::OCI_MANIFEST { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
    let manifest = Manifest {
        schema_version: 2,
        media_type: family.to_owned(),
        config: Descriptor::new(config, Digest::hash(&image.config), image.config.len() as u64),
        layers: image.layers.clone(),
        annotations: own.and_then(|raw| raw.manifest().ok()).map(|manifest| manifest.annotations).unwrap_or_default(),
    };
    RawManifest::from_json(family, &manifest)
}

/// Prepares the image of an archive whose layers are already in place.
///
/// # Errors
/// If its configuration cannot be read.
pub fn composed(image: &ArchivedImage) -> Result<PreparedImage> {
    let parsed: ImageConfig = serde_json::from_slice(&image.config)
        .map_err(|error| Error::usage("failed to read the image's configuration").because(&error))?;
    let raw = manifest(image).map_err(|error| Error::push("failed to write the image's manifest").because(&error))?;
    Ok(PreparedImage {
        manifest: raw,
        config: image.config.clone(),
        diff_ids: image.diff_ids.clone(),
        layers: image.layers.clone(),
        platform: parsed.platform,
        inline_cache: parsed.inline_cache,
    })
}

impl State {
    /// Returns the layer with this content: a placeholder layer, or a layer that a repository has. Returns `None` if there is none.
    fn layer(&self, diff_id: &DiffId) -> Option<&Descriptor> {
        let below = self.placeholder_layers.values().find(|stored| stored.diff_id == *diff_id).map(|stored| &stored.descriptor);
        below.or_else(|| self.known.layer(diff_id).map(|(descriptor, _)| descriptor))
    }
}

/// Stores the layers that are not known.
struct NewLayers {
    intake: Intake,
    directory: PathBuf,
}

impl NewLayers {
    /// Returns the layer if the entry's name identifies it as a known one, or else `None`.
    fn known(&self, hint: &Digest, format: Format) -> Option<StoredLayer> {
        let state = self.intake.inner().state();
        if let Some(stored) = state.placeholder_layers.get(hint) {
            return Some(stored.clone());
        }
        if format == Format::Tar {
            let diff_id = hint.of_uncompressed();
            let descriptor = state.layer(&diff_id)?.clone();
            return Some(StoredLayer { diff_id, descriptor });
        }
        let (descriptor, _) = state.known.blob(hint)?;
        let diff_id = state.known.diff_id(hint)?.clone();
        Some(StoredLayer { diff_id, descriptor: descriptor.clone() })
    }
}

#[async_trait]
impl Layers for NewLayers {
    async fn layer(&mut self, layer: Layer) -> io::Result<StoredLayer> {
        if let Some(known) = layer.hint.as_ref().and_then(|hint| self.known(hint, layer.format)) {
            return Ok(known);
        }
        // Before Docker 25, only its bytes identify a layer: hakobi compresses it once it knows that the layer is new.
        let Spooled { blob, layer: stored } = spooled(layer, None, &self.directory).await?;
        let inner = self.intake.inner();
        let known = inner.state().layer(&stored.diff_id).cloned();
        if let Some(descriptor) = known {
            return Ok(StoredLayer { descriptor, ..stored });
        }
        let Descriptor { digest, size, .. } = stored.descriptor.clone();
        {
            let mut state = inner.state();
            state.is_uncompressed(&blob, &stored.diff_id);
            state.blobs.insert(digest.clone(), Blob { spool: blob.clone(), identity: Identity { digest, size } });
        }
        // At the same time, the next layer arrives.
        let intake = self.intake.clone();
        tokio::spawn(async move {
            // A fault occurs again, and is reported, when the image is prepared.
            let _ = intake.inner().forward(&blob).await;
        });
        Ok(stored)
    }
}
