//! The path indexes of layers. Later runs append to layers by their indexes, without downloading them.

use std::io::Read;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::io::SyncIoBridge;

use crate::build_context::Tree;
use crate::domain::{DiffId, Digest, Hasher};
use crate::layers::LayerIndex;
use crate::local_registry::CacheRepository;
use crate::plan::{LARGE, Record, RecordKey, Records};
use crate::transfer::ByteStream;
use crate::transfer::compress::plain;

impl Record for LayerIndex {
    const LIMIT: u64 = LARGE;
}

/// Returns the key of a layer's index. It contains the blob's digest and the diff ID, so that a blob with a wrong diff ID has no
/// index.
pub fn key(blob: &Digest, diff_id: &DiffId) -> RecordKey<LayerIndex> {
    RecordKey::from_text(&format!("hakobi layer index 2\n{blob}\n{diff_id}"))
}

/// Records the paths of a base image's layer while the daemon pulls it, unless they are recorded. After a failure here, hakobi
/// tries once more when it saves the build.
pub async fn index_layer(records: Records, from: CacheRepository, blob: Digest, diff_id: DiffId, cores: Arc<Semaphore>) {
    let key = key(&blob, &diff_id);
    if records.one(&key).await.is_ok_and(|known| known.is_some()) {
        return;
    }
    let Some(bytes) = from.follow(&blob).await else { return };
    let Ok(_one) = cores.acquire().await else { return };
    if let Some(index) = index(plain(bytes).await.ok(), Some(&diff_id)).await {
        let _ = records.write([(key, index)]).await;
    }
}

/// Reads the files of a layer's tar.
///
/// # Errors
/// If the tar cannot be read.
pub async fn read_tree(layer: ByteStream) -> std::io::Result<Tree> {
    let tree = tokio::task::spawn_blocking(move || Tree::from_tar(SyncIoBridge::new(layer))).await;
    tree.map_err(std::io::Error::other)?
}

/// Reads the index of a layer. Returns `None` if its paths are not readable; hakobi then cannot append to it. `expected` is the
/// diff ID of a layer that no daemon has unpacked: only the image says it, so hakobi compares it with the bytes.
pub async fn index(layer: Option<ByteStream>, expected: Option<&DiffId>) -> Option<LayerIndex> {
    let (layer, expected) = (layer?, expected.cloned());
    let read = tokio::task::spawn_blocking(move || {
        let mut from = Hashing { inner: SyncIoBridge::new(layer), hasher: expected.is_some().then(Hasher::default) };
        let index = LayerIndex::from_tar(&mut from)?;
        // hakobi checks a cached blob's digest at its end, so it reads to the end.
        std::io::copy(&mut from, &mut std::io::sink())?;
        let found = from.hasher.map(|hasher| hasher.digest().of_uncompressed());
        std::io::Result::Ok((found == expected).then_some(index))
    });
    read.await.ok()?.ok()?
}

/// A reader that hashes the bytes, if it has a hasher.
pub struct Hashing<R> {
    pub inner: R,
    pub hasher: Option<Hasher>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_what_it_was() {
        let key = key(&Digest::hash(b"blob"), &DiffId::hash(b"tar"));
        assert_eq!(key.digest().hex(), "1ef9c2518dadb0050c75f06efb0f4b94f79422a1833a54b9447c994f14a388e0");
    }
}
