//! The history of a tag, as far as the registry has it: [`super::promote()`] keeps earlier images under tags of their own.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::promote::is_previous;
use crate::domain::{Digest, ImageRef, RawManifest};
use crate::error::{Error, Result};
use crate::registry::{self, Client, Registries};

/// Largest configuration that is read, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// How many images are looked up at once.
const AT_ONCE: usize = 8;

/// An image under a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The tag.
    pub tag: ImageRef,
    /// The digest that it points to.
    pub digest: Digest,
    /// When the image was made, according to its configuration; empty if that is not known.
    pub created: String,
}

impl Standing {
    /// Returns the parsed time, because texts with different fractions of a second would sort wrongly.
    fn made(&self) -> Option<jiff::Timestamp> {
        self.created.parse().ok()
    }
}

/// The present and earlier images of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The present image.
    pub now: Standing,
    /// Earlier images, the most recently made first.
    pub before: Vec<Standing>,
}

/// Looks up the history of a tag.
///
/// # Errors
/// If there is no such tag, or the registry cannot be read.
pub async fn history(registries: &Registries, image: &ImageRef) -> Result<History> {
    let client = registries.repository(&image.repository);
    let missing = || Error::push(format!("no image {image} in the registry"));
    let now = standing(&client, image.clone()).await?.ok_or_else(missing)?;
    let tag = image.tag.clone().unwrap_or_default();
    let tags = client.tags().await?.into_iter().filter(|name| is_previous(name, &tag));
    let before: Vec<Option<Standing>> = stream::iter(tags.map(|name| standing(&client, image.repository.tag(&name))))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut before: Vec<Standing> = before.into_iter().flatten().filter(|standing| standing.digest != now.digest).collect();
    before.sort_by_key(|standing| std::cmp::Reverse((standing.made(), standing.tag.tag.clone())));
    Ok(History { now, before })
}

async fn standing(client: &Client, tag: ImageRef) -> registry::Result<Option<Standing>> {
    let Some(manifest) = client.manifest(&tag.reference()).await? else { return Ok(None) };
    let created = created(client, &manifest).await.unwrap_or_default();
    Ok(Some(Standing { tag, digest: manifest.digest(), created }))
}

/// Returns when an image was made; for an index, its first image. Returns `None` if that is not known.
async fn created(client: &Client, manifest: &RawManifest) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Config {
        created: String,
    }
    let config = if manifest.is_index() {
        let first = manifest.index().ok()?.manifests.into_iter().next()?;
        client.manifest(&first.digest.to_string()).await.ok()??.manifest().ok()?.config
    } else {
        manifest.manifest().ok()?.config
    };
    let config = client.read_blob(&config.digest, CONFIG_LIMIT).await.ok()?;
    serde_json::from_slice::<Config>(&config).ok().map(|config| config.created)
}
