//! The images of an archive, after all of it was read. `manifest.json` is Docker's own list. `index.json` may list more images, as
//! the containerd store's does for several platforms.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;

use super::contents::{Contents, Item};
use super::error::{Error, Result};
use super::format::Format;
use super::layer::{Layer, Layers, StoredLayer};
use super::listing::{INDEX, Listed, bytes, json, words};
use super::{index, names};
use crate::domain::{Descriptor, DiffId, Digest, ImageRef, RawManifest};

/// Docker's list of images.
pub(super) const MANIFEST: &str = "manifest.json";

/// The maximum number of images in an archive.
const IMAGES_LIMIT: usize = 1000;

/// The maximum number of layers in an image.
const LAYERS_LIMIT: usize = 1000;

/// The maximum number of layers in all images together. Shared layers count for each image.
const ALL_LAYERS_LIMIT: usize = 50_000;

/// An image of an archive. An image for several platforms is several of these, with the same tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedImage {
    /// Its names, each with a tag. Empty if the image was saved by its ID.
    pub tags: Vec<ImageRef>,
    /// Its configuration's bytes.
    pub config: Bytes,
    /// The diff IDs of its layers, from the base upwards, as in the configuration.
    pub diff_ids: Vec<DiffId>,
    /// Its stored layers.
    pub layers: Vec<Descriptor>,
    /// Its manifest, if the archive has one. It names the archive's layers, which may be stored in another form.
    pub manifest: Option<RawManifest>,
}

/// Returns the images in the archive's lists, each verified.
///
/// # Errors
/// If there are none, or one of them is incomplete or wrong.
pub(super) async fn assemble(contents: &Contents, layers: &mut dyn Layers) -> Result<Vec<ArchivedImage>> {
    if contents.find(MANIFEST).is_none() && contents.find(INDEX).is_none() {
        return Err(Error::malformed("not an archive of images, or truncated: it has neither a manifest.json nor an index.json"));
    }
    let mut listed = of_manifest(contents)?;
    listed.extend(index::listed(contents)?);
    if listed.len() > IMAGES_LIMIT {
        return Err(Error::malformed(format!("the archive has more than {IMAGES_LIMIT} images")));
    }
    let mut images: Vec<ArchivedImage> = Vec::new();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    let mut all_layers = 0;
    for image in listed {
        let config = config(contents, &image)?;
        let digest = Digest::hash(&config);
        if let Some(place) = places.get(&digest) {
            let known = &mut images[*place];
            let new: Vec<ImageRef> = image.tags.into_iter().filter(|tag| !known.tags.contains(tag)).collect();
            known.tags.extend(new);
            known.manifest = known.manifest.take().or(image.manifest);
            continue;
        }
        all_layers += image.layers.len();
        if all_layers > ALL_LAYERS_LIMIT {
            return Err(Error::malformed(format!("the archive's images have more than {ALL_LAYERS_LIMIT} layers")));
        }
        places.insert(digest, images.len());
        images.push(verified(contents, image, config, layers).await?);
    }
    if images.is_empty() { Err(Error::malformed("the archive has no image")) } else { Ok(images) }
}

/// Returns the images of `manifest.json`. The list is empty if there is no such file.
fn of_manifest(contents: &Contents) -> Result<Vec<Listed>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Row {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Option<Vec<String>>,
    }
    if contents.find(MANIFEST).is_none() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = json(contents, MANIFEST)?;
    let normal = |path: &str| names::normal(path.as_bytes());
    rows.into_iter()
        .map(|row| {
            let tags = row.repo_tags.unwrap_or_default().into_iter().map(|tag| {
                tag.parse::<ImageRef>()
                    .map(ImageRef::with_default_tag)
                    .map_err(|error| Error::malformed(format!("failed to parse the archive's {MANIFEST}: {error}")))
            });
            let layers = row.layers.unwrap_or_default();
            Ok(Listed {
                tags: tags.collect::<Result<_>>()?,
                config: normal(&row.config)?,
                layers: layers.iter().map(|path| normal(path)).collect::<Result<_>>()?,
                manifest: None,
            })
        })
        .collect()
}

fn config(contents: &Contents, image: &Listed) -> Result<Bytes> {
    let wrong = |why: &str| Error::malformed(format!("{}: the configuration {} {why}", name(image), image.config));
    let bytes = bytes(contents, &image.config, usize::MAX).map_err(|why| wrong(&why))?;
    // Docker up to 24 also names it by its digest. Other names have no meaning.
    let file = image.config.rsplit('/').next().unwrap_or_default();
    let hex = file.strip_suffix(".json").unwrap_or(file).trim_start_matches("sha256:");
    let named: Option<Digest> = format!("sha256:{hex}").parse().ok();
    let found = Digest::hash(&bytes);
    if named.is_some_and(|named| named != found) {
        return Err(wrong(&format!("is damaged: its bytes have the digest {found}")));
    }
    Ok(bytes)
}

/// Returns the diff IDs of a configuration. Some tools write null for an empty list.
pub(super) fn diff_ids(config: &[u8]) -> serde_json::Result<Vec<DiffId>> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Option<Vec<DiffId>>,
    }
    Ok(serde_json::from_slice::<Config>(config)?.rootfs.diff_ids.unwrap_or_default())
}

async fn verified(contents: &Contents, image: Listed, config: Bytes, layers: &mut dyn Layers) -> Result<ArchivedImage> {
    let wrong = |why: String| Error::malformed(format!("{}: {why}", name(&image)));
    let diff_ids = diff_ids(&config);
    let diff_ids = diff_ids.map_err(|error| wrong(format!("failed to read the configuration {}: {error}", image.config)))?;
    let count = diff_ids.len();
    let told = image.layers.len();
    if told != count {
        let layers = if told == 1 { "layer" } else { "layers" };
        return Err(wrong(format!("it has {told} {layers}, but its configuration has {count}")));
    }
    if count > LAYERS_LIMIT {
        return Err(wrong(format!("it has {count} layers; the limit is {LAYERS_LIMIT}")));
    }
    let mut descriptors = Vec::with_capacity(count);
    for (place, (path, diff_id)) in image.layers.iter().zip(&diff_ids).enumerate() {
        let which = format!("layer {} of {count} ({path})", place + 1);
        let stored = match contents.find(path) {
            Some(Item::Layer(stored)) => StoredLayer::clone(stored),
            Some(Item::Empty) => empty(path, layers).await?,
            Some(item) => return Err(wrong(format!("{which} is {}", words(item)))),
            None => return Err(wrong(format!("{which} is not in the archive"))),
        };
        if stored.diff_id != *diff_id {
            let found = stored.diff_id;
            return Err(wrong(format!("{which} has the diff ID {found}, but {diff_id} in the configuration")));
        }
        descriptors.push(stored.descriptor);
    }
    Ok(ArchivedImage { tags: image.tags, config, diff_ids, layers: descriptors, manifest: image.manifest })
}

/// Stores an empty layer: an entry without bytes, which only now is known to be a layer.
async fn empty(path: &str, layers: &mut dyn Layers) -> Result<StoredLayer> {
    let hint = Some(Digest::hash(b""));
    let layer = Layer { hint, size: 0, format: Format::Tar, bytes: Box::pin(tokio::io::empty()) };
    layers.layer(layer).await.map_err(|error| Error::Keep { path: path.to_owned(), error })
}

fn name(image: &Listed) -> String {
    match image.tags.first() {
        Some(tag) => format!("image {tag}"),
        None => format!("image {}", image.config),
    }
}
