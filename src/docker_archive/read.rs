//! Reading: one pass over the archive, layers handed on as they come, then the images that its records tell of.

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

/// Largest JSON held, in bytes: configurations with inline cache are the large ones.
const JSON_LIMIT: u64 = 16 << 20;

/// Reads an archive: a tar, or one in gzip or zstd, in any form that Docker, skopeo and buildx write.
///
/// # Errors
/// If it breaks off, is damaged, is not an archive of images or has what none has; if an image's layers are not all there or
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
                // The same blob again: it is passed over.
                if body.digest.is_some() && matches!(contents.at(&entry.path), Some(Item::Layer(_) | Item::Json(_))) {
                    continue;
                }
                let read = file(&entry.path, body, layers).await;
                // Whatever came of it: bytes that were not right are told as such.
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

/// What a file of the archive is.
async fn file(path: &str, mut body: Body, layers: &mut dyn Layers) -> Result<Item> {
    if body.size == 0 {
        return Ok(Item::Empty);
    }
    let (size, hint) = (body.size, body.digest.clone());
    let head = format::head(&mut body).await.map_err(Error::Read)?;
    if let Some(format) = Format::detect(&head) {
        let layer = Layer { hint, size, format, bytes: format::with_head(head, body) };
        let kept = layers.layer(layer).await.map_err(|error| Error::Keep { path: path.to_owned(), error })?;
        return Ok(Item::Layer(Box::new(kept)));
    }
    if !matches!(head.trim_ascii_start(), [b'{' | b'[', ..]) {
        return Ok(Item::Other(format::other(&head).to_owned()));
    }
    if size > JSON_LIMIT {
        return Ok(Item::Other(format!("{size} bytes of JSON; the limit is {JSON_LIMIT}")));
    }
    let mut bytes = head;
    body.read_to_end(&mut bytes).await.map_err(Error::Read)?;
    Ok(if is_record(path, &bytes) { Item::Json(Bytes::from(bytes)) } else { Item::Other("other JSON".to_owned()) })
}

/// Whether this is a manifest, an index or a configuration. Attestations are not, and may be many.
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
