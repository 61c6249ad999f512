//! Writes one form that every engine loads, and that Docker 25 and later write too: an OCI layout with a `manifest.json`.
//!
//! Layers come first, so that hakobi knows the sizes of decompressed layers before it writes the manifests. A tar's header needs
//! that size before the bytes. hakobi therefore spools such layers, one at a time. Reading a layer twice instead would also
//! download a remote layer twice. Spooling also verifies the diff ID before the first byte goes out.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::error::{Error, Result};
use super::format::{self, BLOCK, Format};
use super::images::{MANIFEST, diff_ids};
use super::index::blob_path;
use super::listing::INDEX;
use super::records::{self, Row};
use super::spooled::copy;
use crate::domain::{Descriptor, DiffId, Digest, Hasher, ImageRef, RawManifest, media_type};
use crate::transfer::{BlobSource, ByteStream, Spool};

/// The number of bytes to pass on at once.
const BUFFER: usize = 256 << 10;

/// The number of buffers in flight.
const BUFFERS: usize = 4;

/// An image for an archive.
pub struct SavedImage {
    /// Its names. A name without a tag gets `latest`.
    pub tags: Vec<ImageRef>,
    /// Its configuration's bytes.
    pub config: Bytes,
    /// All layers of the configuration, from the base upwards.
    pub layers: Vec<SavedLayer>,
    /// Its manifest, written unchanged if it matches the layers as written. Its digest is the image ID in the containerd store.
    pub manifest: Option<RawManifest>,
}

/// A layer for an archive.
#[derive(Clone)]
pub struct SavedLayer {
    /// The digest of its uncompressed bytes.
    pub diff_id: DiffId,
    /// The stored blob.
    pub descriptor: Descriptor,
    /// The source of its bytes. `None` leaves the bytes out, because the daemon has the layer: overlay2 by its chain ID, the
    /// containerd store by the blob's digest.
    pub blob: Option<Arc<dyn BlobSource>>,
}

/// The form of written layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The stored form. Docker accepts zstd from 23.0 on.
    Stored,
    /// Decompresses zstd and keeps gzip, for any Docker version.
    WithoutZstd,
}

impl Encoding {
    fn takes(self, format: Format) -> bool {
        match self {
            Self::Stored => true,
            Self::WithoutZstd => format != Format::Zstd,
        }
    }
}

/// Returns an archive of these images, which hakobi writes while the caller reads it, within a tokio runtime. Writes a layer of
/// several images once. If a blob breaks off or does not match its digest, the stream ends with an error. Stores decompressed
/// layers in `directory`, one at a time.
///
/// # Errors
/// If an image's layers do not match its configuration.
pub fn write(images: Vec<SavedImage>, encoding: Encoding, directory: &Path) -> Result<ByteStream> {
    for image in &images {
        let name = image.tags.first().map_or_else(|| Digest::hash(&image.config).to_string(), ToString::to_string);
        let wrong = |why: String| Error::malformed(format!("failed to archive the image {name}: {why}"));
        let told = diff_ids(&image.config).map_err(|error| wrong(format!("failed to read its configuration: {error}")))?;
        if !told.iter().eq(image.layers.iter().map(|layer| &layer.diff_id)) {
            return Err(wrong("its layers do not match its configuration".to_owned()));
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(BUFFERS);
    let writer = Writer { sender, encoding, directory: directory.to_owned(), blobs: HashSet::new(), layers: HashMap::new() };
    let task = AbortOnDropHandle::new(tokio::spawn(writer.archive(images)));
    // The stream reports the task's error: a lost task must not look like the end of an archive.
    let end = stream::once(task).filter_map(|end| async { end.map_err(io::Error::other).and_then(|end| end).err().map(Err) });
    let chunks = ReceiverStream::new(receiver).map(io::Result::<Bytes>::Ok).chain(end);
    Ok(Box::pin(StreamReader::new(Box::pin(chunks))))
}

struct Writer {
    sender: Sender<Bytes>,
    encoding: Encoding,
    directory: PathBuf,
    /// The written blobs, and those left out because the daemon has them.
    blobs: HashSet<Digest>,
    /// The layers as written.
    layers: HashMap<DiffId, Descriptor>,
}

impl Writer {
    async fn archive(mut self, images: Vec<SavedImage>) -> io::Result<()> {
        for directory in ["blobs/", "blobs/sha256/"] {
            self.header(directory, tar::EntryType::Directory, 0).await?;
        }
        // If one image provides a layer and another leaves it out, hakobi writes the layer.
        let (given, left_out): (Vec<&SavedLayer>, _) =
            images.iter().flat_map(|image| &image.layers).partition(|layer| layer.blob.is_some());
        for layer in given.into_iter().chain(left_out) {
            self.layer(layer).await?;
        }
        let (mut rows, mut manifests) = (Vec::new(), Vec::new());
        for image in &images {
            let layers: Vec<Descriptor> =
                image.layers.iter().filter_map(|layer| self.layers.get(&layer.diff_id).cloned()).collect();
            let config = Descriptor::new(media_type::OCI_CONFIG, Digest::hash(&image.config), image.config.len() as u64);
            let manifest = records::manifest(image.manifest.as_ref(), &config, &layers)?;
            self.small_blob(&image.config).await?;
            self.small_blob(&manifest.bytes).await?;
            let tags: Vec<ImageRef> = image.tags.iter().filter_map(records::tagged).collect();
            rows.push(Row::new(&tags, &config, &layers));
            manifests.extend(records::named(&manifest, &tags));
        }
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
        self.file(INDEX, &records::index(manifests)?).await?;
        self.file(MANIFEST, &serde_json::to_vec(&rows)?).await?;
        self.send(Bytes::from_static(&[0; 2 * BLOCK])).await
    }

    async fn layer(&mut self, layer: &SavedLayer) -> io::Result<()> {
        if self.layers.contains_key(&layer.diff_id) {
            return Ok(());
        }
        let Some(blob) = &layer.blob else {
            let written = Descriptor::new(
                records::oci(&layer.descriptor.media_type),
                layer.descriptor.digest.clone(),
                layer.descriptor.size,
            );
            self.blobs.insert(written.digest.clone());
            self.layers.insert(layer.diff_id.clone(), written);
            return Ok(());
        };
        let mut bytes = blob.open(0).await?;
        let head = format::head(&mut bytes).await?;
        // A layer without bytes is an empty layer too.
        let format = if head.is_empty() { Some(Format::Tar) } else { Format::detect(&head) };
        let Some(format) = format else {
            let what = format::other(&head);
            return Err(io::Error::other(format!("the layer {} is not a layer: it is {what}", layer.descriptor.digest)));
        };
        let bytes = format::with_head(head, bytes);
        let written = if self.encoding.takes(format) {
            let Descriptor { digest, size, .. } = layer.descriptor.clone();
            self.blob(Descriptor::new(format.media_type(), digest, size), bytes).await?
        } else {
            let (writer, spool) = Spool::create(&self.directory)?;
            let digest = &layer.descriptor.digest;
            let identity = copy(format.decompress(bytes), writer).await;
            let identity =
                identity.map_err(|error| io::Error::other(format!("failed to decompress the layer {digest}: {error}")))?;
            if identity.digest.hex() != layer.diff_id.hex() {
                let (found, expected) = (identity.digest, &layer.diff_id);
                return Err(io::Error::other(format!("the layer {digest} has the diff ID {found}, not {expected}")));
            }
            let bytes = spool.open(0).await?;
            self.blob(Descriptor::new(Format::Tar.media_type(), identity.digest, identity.size), bytes).await?
        };
        self.layers.insert(layer.diff_id.clone(), written);
        Ok(())
    }

    /// Writes a blob, and verifies its bytes as they pass.
    async fn blob(&mut self, what: Descriptor, from: ByteStream) -> io::Result<Descriptor> {
        if !self.blobs.insert(what.digest.clone()) {
            return Ok(what);
        }
        self.header(&blob_path(&what.digest), tar::EntryType::Regular, what.size).await?;
        let mut hasher = Hasher::default();
        // One byte more shows that a blob is too long.
        let mut from = from.take(what.size.saturating_add(1));
        let mut left = what.size;
        loop {
            let mut buffer = BytesMut::with_capacity(BUFFER);
            let read = from.read_buf(&mut buffer).await?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer);
            left = left.checked_sub(read as u64).ok_or_else(|| damaged(&what))?;
            self.send(buffer.freeze()).await?;
        }
        if left > 0 || hasher.digest() != what.digest {
            return Err(damaged(&what));
        }
        self.pad(what.size).await?;
        Ok(what)
    }

    async fn small_blob(&mut self, bytes: &[u8]) -> io::Result<()> {
        let digest = Digest::hash(bytes);
        if self.blobs.insert(digest.clone()) { self.file(&blob_path(&digest), bytes).await } else { Ok(()) }
    }

    async fn file(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(path, tar::EntryType::Regular, bytes.len() as u64).await?;
        self.send(Bytes::copy_from_slice(bytes)).await?;
        self.pad(bytes.len() as u64).await
    }

    async fn header(&self, path: &str, kind: tar::EntryType, size: u64) -> io::Result<()> {
        // The header is GNU's, because its sizes may exceed 8 GiB.
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.send(Bytes::copy_from_slice(header.as_bytes())).await
    }

    async fn pad(&self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.send(Bytes::from_static(&[0; BLOCK]).slice(over..)).await }
    }

    async fn send(&self, bytes: Bytes) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the archive is closed");
        if bytes.is_empty() { Ok(()) } else { self.sender.send(bytes).await.map_err(gone) }
    }
}

fn damaged(blob: &Descriptor) -> io::Error {
    io::Error::other(format!("the layer {} is damaged: its bytes do not match its digest and size", blob.digest))
}
