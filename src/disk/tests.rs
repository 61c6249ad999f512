//! Tests of images against a model: bytes in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use super::protocol::KeptDisk;
use super::*;
use crate::store::{Blobs, Entry, MemoryStore, Name, Object, ObjectStore};
use crate::transfer::ByteStream;

/// A store that counts reads of blobs, and does not answer if `stalls`.
#[derive(Debug, Default)]
struct Counting {
    inner: MemoryStore,
    reads: AtomicUsize,
    stalls: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl ObjectStore for Counting {
    async fn size(&self, name: &Name) -> crate::store::Result<Option<u64>> {
        self.inner.size(name).await
    }

    async fn read(&self, name: &Name, range: std::ops::Range<u64>) -> crate::store::Result<Option<ByteStream>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.stalls.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        self.inner.read(name, range).await
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> crate::store::Result<()> {
        self.inner.put(name, object).await
    }

    async fn list(&self, prefix: &str) -> crate::store::Result<Vec<Entry>> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &Name) -> crate::store::Result<()> {
        self.inner.delete(name).await
    }
}

struct World {
    store: Arc<Counting>,
    blobs: Blobs,
    folder: tempfile::TempDir,
    images: usize,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(Counting::default());
        Self { blobs: Blobs::new(store.clone()), store, folder: tempfile::tempdir().unwrap(), images: 0 }
    }

    /// Opens an image as another machine does.
    fn open(&mut self, list: ChunkList) -> Image {
        self.images += 1;
        Image::open(self.blobs.clone(), list, &self.folder.path().join(self.images.to_string())).unwrap()
    }

    /// Saves an image of noise with this number of chunks.
    async fn saved(&mut self, chunks: usize) -> (SavedDisk, Vec<u8>) {
        let mut bytes = vec![0; chunks * CHUNK];
        StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
        let image = self.open(ChunkList::empty(bytes.len() as u64));
        image.write(0, &bytes).await.unwrap();
        (image.save(None, false).await.unwrap().saved, bytes)
    }
}

#[tokio::test]
async fn an_image_is_as_its_model_on_every_machine() {
    let mut world = World::new();
    let mut random = StdRng::seed_from_u64(1);
    let size = 5 * CHUNK;
    let (mut model, mut saved): (Vec<u8>, Option<SavedDisk>) = (vec![0; size], None);
    for machine in 0..8 {
        let list = match &saved {
            Some(saved) => saved.load(&world.blobs).await.unwrap(),
            None => ChunkList::empty(size as u64),
        };
        let image = world.open(list);
        for _ in 0..20 {
            let start = random.random_range(0..size);
            let length = random.random_range(0..=(size - start).min(2 * CHUNK));
            let range = start..start + length;
            match random.random_range(0..4) {
                0 => {
                    image.discard(start as u64, length as u64).await.unwrap();
                    model[range].fill(0);
                }
                1 => {
                    random.fill_bytes(&mut model[range.clone()]);
                    image.write(start as u64, &model[range]).await.unwrap();
                }
                _ => assert!(image.read(start as u64, length).await.unwrap() == model[range], "machine {machine}"),
            }
        }
        saved = Some(image.save(saved.as_ref(), false).await.unwrap().saved);
    }
    let image = world.open(saved.unwrap().load(&world.blobs).await.unwrap());
    assert!(image.read(0, size).await.unwrap() == model);
}

#[tokio::test]
async fn only_what_is_read_comes_and_only_what_changed_goes() {
    let mut world = World::new();
    let image = world.open(ChunkList::empty(600 * CHUNK as u64));
    for place in [0_u64, 7, 8, 300, 599] {
        image.write(place * CHUNK as u64 + 5, &(place + 1).to_le_bytes()).await.unwrap();
    }
    let saved = image.save(None, false).await.unwrap().saved;
    let objects = world.store.list("").await.unwrap().len();
    assert_eq!((saved.nodes.len(), objects), (3, 8), "a chunk each, and three nodes");
    let image = world.open(saved.load(&world.blobs).await.unwrap());
    world.store.reads.store(0, Ordering::SeqCst);
    assert_eq!(image.read(300 * CHUNK as u64 + 5, 8).await.unwrap(), 301_u64.to_le_bytes());
    assert_eq!(image.read(301 * CHUNK as u64 + 5, 8).await.unwrap(), [0; 8]);
    // A whole chunk need not come to be overwritten.
    image.write(7 * CHUNK as u64, &vec![1; CHUNK]).await.unwrap();
    image.discard(8 * CHUNK as u64, CHUNK as u64).await.unwrap();
    image.write(400 * CHUNK as u64, b"for a moment").await.unwrap();
    image.discard(100 * CHUNK as u64, 199 * CHUNK as u64).await.unwrap();
    image.discard(301 * CHUNK as u64, 200 * CHUNK as u64).await.unwrap();
    assert_eq!((world.store.reads.load(Ordering::SeqCst), image.reads()), (1, vec![300]));
    let KeptDisk { saved: next, uploaded: new, .. } = image.save(Some(&saved), false).await.unwrap();
    assert!(new < 1000, "{new} bytes of a chunk of ones");
    assert_eq!(world.store.list("").await.unwrap().len(), objects + 2, "the chunk and its node");
    assert_eq!(next.nodes[1..], saved.nodes[1..]);
}

#[tokio::test]
async fn a_chunk_comes_once_for_all_that_wait() {
    let mut world = World::new();
    let (saved, bytes) = world.saved(2).await;
    let image = world.open(saved.load(&world.blobs).await.unwrap());
    world.store.reads.store(0, Ordering::SeqCst);
    let reads = (0..50).map(|place| image.read(place * 1000, 2000));
    let ahead = image.fetch_ahead(&[0, 1, 9]);
    let (all, ()) = futures::join!(futures::future::join_all(reads), ahead);
    for (place, read) in all.into_iter().enumerate() {
        assert!(read.unwrap() == bytes[place * 1000..place * 1000 + 2000]);
    }
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 2);
    assert_eq!(image.reads(), [0], "what only came ahead was not read");
}

#[tokio::test]
async fn no_wrong_byte_is_read() {
    let mut world = World::new();
    let (saved, bytes) = world.saved(3).await;
    let list = saved.load(&world.blobs).await.unwrap();
    let name = |place: usize| Name::blob(list.chunks()[place].as_ref().unwrap());
    let put = |name: Name, bytes: Vec<u8>| world.store.inner.set(&name, Bytes::from(bytes));
    put(name(0), b"damaged".to_vec());
    world.store.delete(&name(1)).await.unwrap();
    let image = world.open(list.clone());
    assert!(matches!(image.read(0, 10).await, Err(Error::Damaged(_))));
    assert!(matches!(image.read(CHUNK as u64, 10).await, Err(Error::Missing(_))));
    // Part of a chunk that does not come cannot be written either.
    assert!(matches!(image.write(5, b"part").await, Err(Error::Damaged(_))));
    assert!(image.read(2 * CHUNK as u64, CHUNK).await.unwrap() == bytes[2 * CHUNK..]);
    assert!(matches!(image.read(3 * CHUNK as u64, 1).await, Err(Error::Outside(..))));
    assert!(matches!(image.write(u64::MAX, b"xy").await, Err(Error::Outside(..))));
}

/// A blob with the right digest may still be no chunk.
#[tokio::test]
async fn a_list_that_lies_is_refused() {
    let mut world = World::new();
    let (saved, _) = world.saved(2).await;
    let keep = async |bytes: Vec<u8>| {
        let source = crate::transfer::BytesSource::new(bytes.into());
        world.blobs.keep(&source).await.unwrap();
        source.digest().clone()
    };
    let large = keep(zstd::bulk::compress(&vec![7; 2 * CHUNK], 1).unwrap()).await;
    let short = keep(zstd::bulk::compress(b"short", 1).unwrap()).await;
    let node = keep(serde_json::to_vec(&[&large, &short]).unwrap()).await;
    let image = world.open(SavedDisk { nodes: vec![node], ..saved.clone() }.load(&world.blobs).await.unwrap());
    assert!(matches!(image.read(0, 1).await, Err(Error::Malformed(..))));
    assert!(matches!(image.read(CHUNK as u64, 1).await, Err(Error::Malformed(..))));
    let wrong = [
        SavedDisk { chunks: 3, ..saved.clone() },
        SavedDisk { chunks: u64::MAX, ..saved.clone() },
        SavedDisk { nodes: Vec::new(), ..saved.clone() },
        SavedDisk { nodes: vec![large], ..saved },
    ];
    for wrong in wrong {
        assert!(wrong.load(&world.blobs).await.is_err(), "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_does_not_come_is_an_error_in_time() {
    let mut world = World::new();
    let (saved, bytes) = world.saved(1).await;
    let image = world.open(saved.load(&world.blobs).await.unwrap());
    world.store.stalls.store(true, Ordering::SeqCst);
    let read = tokio::time::timeout(Duration::from_secs(120), image.read(0, 1)).await.unwrap();
    assert!(matches!(read, Err(Error::Late(..))), "{read:?}");
    world.store.stalls.store(false, Ordering::SeqCst);
    assert!(image.read(0, CHUNK).await.unwrap() == bytes);
}

/// A disk that replaces a bad one may have chunks of the same content.
#[tokio::test]
async fn a_disk_that_mends_writes_what_the_store_has() {
    let mut world = World::new();
    let (saved, bytes) = world.saved(2).await;
    let list = saved.load(&world.blobs).await.unwrap();
    let name = Name::blob(list.chunks()[1].as_ref().unwrap());
    let size = world.store.inner.size(&name).await.unwrap().unwrap();
    world.store.inner.set(&name, vec![0; usize::try_from(size).unwrap()].into());
    for (mends, is_right) in [(false, false), (true, true)] {
        let image = world.open(ChunkList::empty(2 * CHUNK as u64));
        image.write(0, &bytes).await.unwrap();
        let again = image.save(None, mends).await.unwrap().saved;
        assert_eq!(again, saved);
        let image = world.open(again.load(&world.blobs).await.unwrap());
        assert_eq!(image.read(CHUNK as u64, 10).await.is_ok(), is_right, "{mends}");
    }
}
