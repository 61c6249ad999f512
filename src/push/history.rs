//! What a tag stands for and stood for, as far as the registry knows: [`super::promote()`] keeps earlier images under tags of their own.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::promote::is_previous;
use crate::domain::{Digest, ImageRef, RawManifest};
use crate::error::{Error, Result};
use crate::registry::{self, Client, Registries};

/// Largest configuration read, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Images looked at at once.
const AT_ONCE: usize = 8;

/// An image under a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The tag.
    pub tag: ImageRef,
    /// What it stands for.
    pub digest: Digest,
    /// When the image was made, as its configuration has it; empty where that is not known.
    pub created: String,
}

impl Standing {
    /// As text, fractions of a second of other lengths would stand in another order.
    fn made(&self) -> Option<jiff::Timestamp> {
        self.created.parse().ok()
    }
}

/// What a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Now.
    pub now: Standing,
    /// Before that, the image that was made last first.
    pub before: Vec<Standing>,
}

/// Looks a tag up.
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

/// When an image was made; of an index, its first image.
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
