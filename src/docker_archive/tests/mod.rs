//! Reads hand-made archives of every form, malicious ones, and those that hakobi writes.

mod errors;
mod forms;
mod hostile;
mod written;

use std::collections::HashMap;
use std::io::{self, Write};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::{ArchivedImage, Format, Layer, Layers, Result, Spooled, StoredLayer, read, spooled};
use crate::domain::{Descriptor, DiffId, Digest, RawManifest, media_type};
use crate::settings::Compression;
use crate::transfer::ByteStream;

/// A tar, written entry by entry, with headers that no library would write.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, path: &str, kind: u8, link: &str, size: u64, body: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, body: &[u8]) -> Self {
        self.entry(path, b'0', "", body.len() as u64, body)
    }

    fn json(self, path: &str, value: &Value) -> Self {
        self.file(path, value.to_string().as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(path, b'5', "", 0, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, b'2', target, 0, b"")
    }

    fn blob(self, body: &[u8]) -> Self {
        self.file(&blob(body), body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Returns a layer with one file of this content.
fn layer(content: &str) -> Vec<u8> {
    Tar::default().file("file", content.as_bytes()).end()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("encoded")
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::hash(bytes).hex())
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| DiffId::hash(layer)).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs }).to_string().into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::hash(bytes), bytes.len() as u64)
}

/// Returns a manifest of blobs in the archive.
fn manifest(config: &[u8], layers: &[&[u8]]) -> RawManifest {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(media_type::OCI_LAYER_GZIP, layer)).collect();
    let config = descriptor(media_type::OCI_CONFIG, config);
    let value = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers });
    RawManifest::from_json(media_type::OCI_MANIFEST, &value).expect("JSON")
}

fn named(manifest: &RawManifest, name: &str) -> Descriptor {
    let mut descriptor = manifest.descriptor();
    descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.to_owned());
    descriptor
}

fn index(children: &[Descriptor]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children })
}

/// Stores layers, and records the requests.
struct Recorder {
    directory: TempDir,
    compression: Option<Compression>,
    /// Layers that it does not read, because they are already stored.
    known: HashMap<Digest, StoredLayer>,
    seen: Vec<(Option<Digest>, Format)>,
    kept: Vec<Spooled>,
}

impl Recorder {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, compression: None, known: HashMap::new(), seen: Vec::new(), kept: Vec::new() }
    }
}

#[async_trait]
impl Layers for Recorder {
    async fn layer(&mut self, layer: Layer) -> io::Result<StoredLayer> {
        self.seen.push((layer.hint.clone(), layer.format));
        if let Some(known) = layer.hint.as_ref().and_then(|hint| self.known.get(hint)) {
            return Ok(known.clone());
        }
        let spooled = spooled(layer, self.compression, self.directory.path()).await?;
        let kept = spooled.layer.clone();
        self.kept.push(spooled);
        Ok(kept)
    }
}

fn stream(bytes: impl Into<Vec<u8>>) -> ByteStream {
    Box::pin(io::Cursor::new(bytes.into()))
}

async fn all(mut from: ByteStream) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.read_to_end(&mut out).await?;
    Ok(out)
}

async fn read_into(recorder: &mut Recorder, archive: &[u8]) -> Result<Vec<ArchivedImage>> {
    read(stream(archive), recorder).await
}

async fn read_all(archive: &[u8]) -> Vec<ArchivedImage> {
    read_into(&mut Recorder::new(), archive).await.expect("read")
}

async fn refused(archive: &[u8]) -> String {
    read_into(&mut Recorder::new(), archive).await.expect_err("refused").to_string()
}

/// Returns an image's tags and diff IDs.
fn seen(image: &ArchivedImage) -> (Vec<String>, Vec<DiffId>) {
    (image.tags.iter().map(ToString::to_string).collect(), image.diff_ids.clone())
}

fn ids(layers: &[&[u8]]) -> Vec<DiffId> {
    layers.iter().map(|layer| DiffId::hash(layer)).collect()
}

/// Returns a small archive in the form of Docker 25 and later.
fn docker_25(layers: &[&[u8]], tags: &[&str]) -> Tar {
    let config = config(layers);
    let manifest = manifest(&config, layers);
    let children: Vec<_> = tags.iter().map(|tag| named(&manifest, &format!("docker.io/library/{tag}"))).collect();
    let paths: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    let mut tar = Tar::default().directory("blobs/").directory("blobs/sha256/").blob(&config);
    for layer in layers {
        tar = tar.blob(layer);
    }
    tar.blob(&manifest.bytes)
        .json("index.json", &index(&children))
        .json("manifest.json", &json!([{ "Config": blob(&config), "RepoTags": tags, "Layers": paths }]))
        .json("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
