//! Archives of images, and compressed streams.

use std::io;

use async_trait::async_trait;
use hakobi::docker_archive::{self, Layer, Layers, StoredLayer};
use hakobi::domain::{Descriptor, DiffId, Digest};
use hakobi::transfer::compress::plain;
use tokio::io::AsyncReadExt as _;

/// Layers that are only hashed.
#[derive(Default)]
struct Hashed(Vec<StoredLayer>);

#[async_trait]
impl Layers for Hashed {
    async fn layer(&mut self, mut layer: Layer) -> io::Result<StoredLayer> {
        let mut bytes = Vec::new();
        layer.bytes.read_to_end(&mut bytes).await?;
        assert_eq!(bytes.len() as u64, layer.size);
        let digest = Digest::hash(&bytes);
        assert!(layer.hint.is_none_or(|hint| hint == digest), "bytes of another digest");
        let mut tar = super::read(layer.format.decompress(super::stream(&bytes))).await?;
        if tar.len() as u64 == super::MOST {
            return Err(io::Error::other("this test takes no larger layer"));
        }
        let diff_id = DiffId::hash(&std::mem::take(&mut tar));
        let stored = StoredLayer { diff_id, descriptor: Descriptor::new(layer.format.media_type(), digest, layer.size) };
        self.0.push(stored.clone());
        Ok(stored)
    }
}

/// Reads the input as an archive, and again with valid checksums. Each image must have the layers of its configuration.
pub fn archive(input: &[u8]) {
    super::also_mended(input, read_archive);
}

fn read_archive(input: &[u8]) {
    let mut layers = Hashed::default();
    let Ok(images) = super::run(docker_archive::read(super::stream(input), &mut layers)) else { return };
    assert!(!images.is_empty());
    for image in images {
        let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
        let told = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        assert_eq!(told, image.diff_ids.iter().map(|id| serde_json::json!(id)).collect::<Vec<_>>());
        assert_eq!(image.layers.len(), image.diff_ids.len());
        for (descriptor, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            assert!(layers.0.iter().any(|layer| layer.descriptor == *descriptor && layer.diff_id == *diff_id));
        }
    }
}

/// Decompresses the input. A bomb ends at the reader's limit.
pub fn compressed(input: &[u8]) {
    super::run(async {
        let Ok(stream) = plain(super::stream(input)).await else { return };
        if let Ok(bytes) = super::read(stream).await {
            assert!(bytes.len() as u64 <= super::MOST);
        }
    });
}
