//! Copies an image by digest to other tags, from registry to registry: to release or to roll back.

use std::collections::HashSet;

use super::preflight::preflight;
use super::pusher::Pusher;
use super::tags::TagState;
use crate::domain::{Digest, ImageRef, RawManifest, Repository};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::registry::{self, Client, Registries};
use crate::settings::PushSettings;

/// The result for one target.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// The target.
    pub target: ImageRef,
    /// The digest that it points to now, if all went well.
    pub digest: Digest,
    /// The digest that it pointed to before.
    pub previous: Option<Digest>,
    /// The tag that keeps the earlier image, if that was another one.
    pub kept_as: Option<ImageRef>,
    /// The result. `Ok(None)`: skipped, because the tag exists (`--if-tag-exists skip`).
    pub state: std::result::Result<Option<TagState>, registry::Error>,
}

/// An index may contain indexes, up to this depth.
const DEEPEST: usize = 3;

/// Copies an image (an index with its children) to all targets. It first keeps the earlier image of a tag under another tag,
/// `<tag>-previous-<12 digits of its digest>`. Without that, a registry may delete the image, because no tag points to it.
///
/// # Errors
/// If the source does not exist, a target does not accept pushes, or a blob cannot be copied. The failure of a tag is in its
/// [`Promotion`].
pub async fn promote(
    registries: &Registries,
    events: &Events,
    source: &ImageRef,
    targets: &[ImageRef],
    settings: &PushSettings,
) -> Result<Vec<Promotion>> {
    let from = registries.repository(&source.repository);
    let Some(manifest) = from.manifest(&source.reference()).await? else {
        return Err(Error::push(format!("no image {source} in the registry")));
    };
    let digest = manifest.digest();
    let expected_contents = preflight(registries, targets, settings).await?;
    let family = family(&from, &manifest).await?;
    let others: Vec<Repository> = expected_contents
        .push
        .iter()
        .map(|target| target.repository.clone())
        .filter(|repository| *repository != source.repository)
        .collect();
    copy_blobs(registries, events, &source.repository, &manifest, &family, others).await?;
    let mut promotions: Vec<Promotion> = expected_contents
        .skipped
        .into_iter()
        .map(|(target, previous)| Promotion {
            target,
            digest: digest.clone(),
            previous: Some(previous.digest),
            kept_as: None,
            state: Ok(None),
        })
        .collect();
    for target in expected_contents.push {
        let children = if target.repository == source.repository { &[][..] } else { &family[..] };
        promotions.push(one(registries, events, &manifest, children, target).await);
    }
    promotions.sort_by_key(|promotion| targets.iter().position(|target| *target == promotion.target));
    Ok(promotions)
}

/// Returns the manifests below an index, the deepest first.
///
/// # Errors
/// If one of them is missing or cannot be read.
async fn family(from: &Client, manifest: &RawManifest) -> Result<Vec<RawManifest>> {
    let mut found: Vec<RawManifest> = Vec::new();
    let mut level = vec![manifest.clone()];
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for index in level.iter().filter(|manifest| manifest.is_index()) {
            let index = index.index().map_err(|error| Error::push("failed to read an index").because(&error))?;
            for child in index.manifests {
                let Some(child) = from.manifest(&child.digest.to_string()).await? else {
                    return Err(Error::push(format!(
                        "the index names {}, which does not exist in {}",
                        child.digest,
                        from.repository()
                    )));
                };
                next.push(child);
            }
        }
        found.splice(0..0, next.iter().cloned());
        level = next;
    }
    if level.iter().any(RawManifest::is_index) {
        return Err(Error::push(format!("the index is nested more than {DEEPEST} levels deep")));
    }
    Ok(found)
}

async fn copy_blobs(
    registries: &Registries,
    events: &Events,
    from: &Repository,
    manifest: &RawManifest,
    family: &[RawManifest],
    targets: Vec<Repository>,
) -> Result<()> {
    if targets.is_empty() {
        return Ok(());
    }
    let pusher = Pusher::new(registries.clone(), targets, events.clone());
    let mut seen = HashSet::new();
    let mut blobs = Vec::new();
    for image in family.iter().chain(std::iter::once(manifest)).filter(|manifest| !manifest.is_index()) {
        let image = image.manifest().map_err(|error| Error::push("failed to read a manifest").because(&error))?;
        blobs.extend(
            image.layers.into_iter().chain(std::iter::once(image.config)).filter(|blob| seen.insert(blob.digest.clone())),
        );
    }
    for blob in pusher.missing(&blobs).await? {
        pusher.copy(&blob, from);
    }
    pusher.finish_blobs().await?;
    Ok(())
}

async fn one(
    registries: &Registries,
    events: &Events,
    manifest: &RawManifest,
    children: &[RawManifest],
    target: ImageRef,
) -> Promotion {
    let client = registries.repository(&target.repository);
    let digest = manifest.digest();
    let mut promotion =
        Promotion { target: target.clone(), digest: digest.clone(), previous: None, kept_as: None, state: Ok(None) };
    match keep_previous(&client, &target, &digest).await {
        Ok((previous, kept_as)) => {
            promotion.previous = previous;
            promotion.kept_as = kept_as;
        }
        Err(error) => {
            promotion.state = Err(error);
            return promotion;
        }
    }
    let outcome = super::tags::put(&client, manifest, children, vec![target], events).await.pop();
    if let Some(outcome) = outcome {
        promotion.state = outcome.state.map(Some);
    }
    promotion
}

/// Gives the present image of the tag another tag, so that the registry keeps it. Returns its digest and the other tag, or `None`
/// for each that does not exist.
async fn keep_previous(client: &Client, target: &ImageRef, new: &Digest) -> registry::Result<(Option<Digest>, Option<ImageRef>)> {
    let Some(tag) = &target.tag else { return Ok((None, None)) };
    let Some(old) = client.manifest(tag).await? else { return Ok((None, None)) };
    let digest = old.digest();
    if digest == *new {
        return Ok((Some(digest), None));
    }
    let name = previous_tag(tag, &digest);
    client.put_manifest(&old, &name).await?;
    Ok((Some(digest), Some(target.repository.tag(&name))))
}

/// Returns whether a tag keeps an earlier image of this tag.
pub(super) fn is_previous(name: &str, tag: &str) -> bool {
    let Some((kept, hex)) = name.rsplit_once("-previous-") else { return false };
    let is_digest = hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest && (kept == tag || name.len() == 128 && tag.starts_with(kept))
}

/// Returns the tag for an earlier image. Tags have at most 128 characters.
fn previous_tag(tag: &str, digest: &Digest) -> String {
    let hex: String = digest.hex().chars().take(12).collect();
    let kept: String = tag.chars().take(128 - "-previous-".len() - hex.len()).collect();
    format!("{kept}-previous-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_image_gets_a_tag_that_fits() {
        let digest = Digest::hash(b"");
        assert_eq!(previous_tag("prod", &digest), "prod-previous-e3b0c44298fc");
        let long = previous_tag(&"x".repeat(128), &digest);
        assert_eq!(long.len(), 128);
        assert!(long.ends_with("-previous-e3b0c44298fc"));
        assert!(is_previous("prod-previous-e3b0c44298fc", "prod") && is_previous(&long, &"x".repeat(128)));
        for other in ["prod", "prod-previous-", "prod-previous-now", "x-prod-previous-e3b0c44298fc", "pro-previous-e3b0c44298fc"]
        {
            assert!(!is_previous(other, "prod"), "{other}");
        }
    }
}
