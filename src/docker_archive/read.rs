//! Reads an archive in one pass: passes layers on as they arrive, and then returns the images in its records.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncReadExt as _;

use super::body::Body;
use super::contents::{Contents, Item};
use super::error::{Error, Result};
use super::format::{self, Format};
use super::images::{self, ArchivedImage};
use super::layer::{Layer, Layers};
use super::tape::{Kind, Tape};
use crate::transfer::ByteStream;

/// The maximum size of JSON in memory, in bytes. Configurations with inline cache are the largest.
const JSON_LIMIT: u64 = 16 << 20;

/// Reads an archive: a tar, or one in gzip or zstd, in any form that Docker, skopeo and buildx write.
///
/// # Errors
/// If it breaks off, is damaged, or is no archive of images. If an image's layers are incomplete or do not match its configuration.
/// If `layers` cannot store one; the layers stored before remain.
/// not those of its configuration; if `layers` cannot keep one. What `layers` has kept until then is kept.
pub async fn read(mut from: ByteStream, layers: &mut dyn Layers) -> Result<Vec<ArchivedImage>> {
    let head = format::head(&mut from).await.map_err(Error::Read)?;
    let Some(outer) = Format::detect(&head) else {
        return Err(Error::malformed(format!("not an archive of images: it is {}", format::other(&head))));
    };
    let mut tape = Tape::new(outer.decompress(format::with_head(head, from)));
    let mut contents = Contents::default();
    while let Some(entry) = tape.next().await? {
        let item = match entry.kind {
            Kind::Link(to) => Item::Link(to),
            Kind::File(body) => {
                // It is the same blob again: hakobi skips it.
                if body.digest.is_some() && matches!(contents.at(&entry.path), Some(Item::Layer(_) | Item::Json(_))) {
                    continue;
                }
                let read = file(&entry.path, body, layers).await;
                // The tape's error comes first: it names wrong bytes as the cause.
                if let Some(fault) = tape.fault() {
                    return Err(fault);
                }
                read?
            }
        };
        contents.add(entry.path, item)?;
    }
    tape.finish().await?;
    images::assemble(&contents, layers).await
}

/// Returns the content of a file of the archive.
async fn file(path: &str, mut body: Body, layers: &mut dyn Layers) -> Result<Item> {
    if body.size == 0 {
        return Ok(Item::Empty);
    }
    let (size, hint) = (body.size, body.digest.clone());
    let head = format::head(&mut body).await.map_err(Error::Read)?;
    if let Some(format) = Format::detect(&head) {
        let layer = Layer { hint, size, format, bytes: format::with_head(head, body) };
        let stored = layers.layer(layer).await.map_err(|error| Error::Keep { path: path.to_owned(), error })?;
        return Ok(Item::Layer(Box::new(stored)));
    }
    if !matches!(head.trim_ascii_start(), [b'{' | b'[', ..]) {
        return Ok(Item::Other(format::other(&head).to_owned()));
    }
    if size > JSON_LIMIT {
        return Ok(Item::Other(format!("{size} bytes of JSON; the limit is {JSON_LIMIT}")));
    }
    let mut bytes = head;
    body.read_to_end(&mut bytes).await.map_err(Error::Read)?;
    Ok(if is_record(path, &bytes) { Item::Json(Bytes::from(bytes)) } else { Item::Other("JSON of another kind".to_owned()) })
}

/// Returns whether this is a manifest, an index or a configuration. Attestations are not, and there may be many.
fn is_record(path: &str, json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        rootfs: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
    }
    if path == images::MANIFEST || path == super::listing::INDEX {
        return true;
    }
    let head: Option<Head> = serde_json::from_slice(json).ok();
    head.is_some_and(|head| head.rootfs.is_some() || head.layers.is_some() || head.manifests.is_some())
}
