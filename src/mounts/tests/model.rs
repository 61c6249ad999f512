//! A mount in memory, with both sides of its content.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::mounts::entry::{ListedEntry, MountEntry, MountEntryKind};
use crate::mounts::error::Result;
use crate::mounts::file_list::FileList;
use crate::mounts::{Earlier, Limits, Listing, PartSink, PartSource, Saved, SentPart, load, save, stream, summary};
use crate::store::{Blobs, MemoryStore, Name, ObjectStore as _, read_small};

/// A file's data by position, and its size. Bytes without data are a hole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub data: BTreeMap<u64, Bytes>,
}

impl Content {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let data = if bytes.is_empty() { BTreeMap::new() } else { BTreeMap::from([(0, bytes.clone())]) };
        Self { size: bytes.len() as u64, data }
    }

    /// Returns all bytes, holes as zeros.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size).unwrap()];
        for (offset, data) in &self.data {
            let offset = usize::try_from(*offset).unwrap();
            bytes[offset..offset + data.len()].copy_from_slice(data);
        }
        bytes
    }
}

/// A mount in the daemon.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    pub entries: BTreeMap<String, MountEntry>,
    pub contents: BTreeMap<String, Content>,
    /// Paths that changed or were used since the last save.
    pub changed: BTreeSet<String>,
    pub used: BTreeSet<String>,
    /// Paths that vanish after the listing.
    pub vanishing: BTreeSet<String>,
    pub clock: i64,
}

impl Mount {
    pub fn new() -> Self {
        let mut mount = Self { clock: 1_790_000_000_000_000_000, ..Self::default() };
        mount.set("", MountEntryKind::Directory);
        mount
    }

    pub fn set(&mut self, path: &str, kind: MountEntryKind) {
        self.clock += 1_234_567;
        let entry = MountEntry {
            path: path.to_owned(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: self.clock,
            xattrs: BTreeMap::new(),
        };
        self.entries.insert(path.to_owned(), entry);
        self.changed.insert(path.to_owned());
        self.used.insert(path.to_owned());
    }

    pub fn put(&mut self, path: &str, content: Content) {
        let parents: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        for parent in parents {
            if !self.entries.contains_key(parent) {
                self.set(parent, MountEntryKind::Directory);
            }
        }
        self.set(path, MountEntryKind::File { size: content.size });
        self.contents.insert(path.to_owned(), content);
    }

    pub fn write(&mut self, path: &str, bytes: impl Into<Bytes>) {
        self.put(path, Content::whole(bytes));
    }

    pub fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        self.contents.remove(path);
    }

    pub fn rename(&mut self, path: &str, to: &str) {
        let mut entry = self.entries.remove(path).unwrap();
        to.clone_into(&mut entry.path);
        self.entries.insert(to.to_owned(), entry);
        let content = self.contents.remove(path).unwrap();
        self.contents.insert(to.to_owned(), content);
        self.changed.insert(to.to_owned());
    }

    pub fn listing(&self) -> Listing {
        let mut entries: Vec<ListedEntry> = Vec::new();
        for entry in self.entries.values() {
            let path = &entry.path;
            let (changed, used) = (self.changed.contains(path), self.used.contains(path));
            entries.push(ListedEntry { entry: entry.clone(), changed, used });
        }
        Listing { entries, summary: summary(self.entries.values()), at: self.clock + 1, newest: self.clock }
    }

    /// Saves the mount. Nothing counts as changed or used afterwards.
    pub async fn save(&mut self, store: &Kept, limits: &Limits, now: u64) -> Result<(Saved, FileList)> {
        self.save_after(store, None, limits, now).await
    }

    pub async fn save_after(
        &mut self,
        store: &Kept,
        earlier: Option<&(Saved, FileList)>,
        limits: &Limits,
        now: u64,
    ) -> Result<(Saved, FileList)> {
        let listing = self.listing();
        let paths: Vec<String> = self.entries.keys().cloned().collect();
        let mut source = Source { mount: self, paths, asked: Vec::new(), rest: None };
        let earlier = earlier.map(|(saved, list)| Earlier { mount: &saved.mount, list });
        let saved = save(&store.blobs, earlier, listing, &mut source, limits, now).await?;
        let list = load(&store.blobs, &saved.mount).await?;
        self.changed.clear();
        self.used.clear();
        Ok((saved, list))
    }
}

pub const NO_LIMITS: Limits = Limits { most_bytes: u64::MAX, most_files: u64::MAX };

struct Source<'a> {
    mount: &'a Mount,
    paths: Vec<String>,
    asked: Vec<u32>,
    rest: Option<std::vec::IntoIter<SentPart>>,
}

#[async_trait]
impl PartSource for Source<'_> {
    async fn send(&mut self, files: &[u32]) -> io::Result<()> {
        assert!(self.rest.is_none(), "asked once");
        self.asked = files.to_vec();
        let mut parts = Vec::new();
        for file in files {
            let path = &self.paths[*file as usize];
            if self.mount.vanishing.contains(path) {
                continue;
            }
            for (offset, data) in &self.mount.contents[path].data {
                for (place, part) in data.chunks(1 << 20).enumerate() {
                    let offset = *offset + ((place as u64) << 20);
                    parts.push(SentPart { file: *file, offset, data: data.slice_ref(part) });
                }
            }
        }
        self.rest = Some(parts.into_iter());
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Option<SentPart>> {
        Ok(self.rest.as_mut().unwrap().next())
    }

    fn gone(&self) -> Vec<u32> {
        self.asked.iter().copied().filter(|file| self.mount.vanishing.contains(&self.paths[*file as usize])).collect()
    }
}

/// A store in memory.
pub struct Kept {
    pub store: Arc<MemoryStore>,
    pub blobs: Blobs,
}

impl Kept {
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        Self { blobs: Blobs::new(store.clone()), store }
    }

    /// The same store for another run, which knows of no damage.
    pub fn again(&self) -> Self {
        Self { store: self.store.clone(), blobs: Blobs::new(self.store.clone()) }
    }

    pub async fn get(&self, name: &Name) -> Bytes {
        read_small(&*self.store, name, 1 << 30).await.unwrap().unwrap()
    }

    pub async fn count(&self) -> usize {
        self.store.list("blobs/").await.unwrap().len()
    }
}

/// Collects the content of all files.
#[derive(Default)]
pub struct Sink(pub BTreeMap<u32, BTreeMap<u64, Bytes>>);

#[async_trait]
impl PartSink for Sink {
    async fn part(&mut self, file: u32, offset: u64, data: Bytes) -> io::Result<()> {
        assert!(self.0.entry(file).or_default().insert(offset, data).is_none(), "each part comes once");
        Ok(())
    }
}

/// Brings the mount in, and compares it with what it should be.
pub async fn assert_same(store: &Kept, list: &FileList, mount: &Mount) {
    let entries: Vec<&MountEntry> = list.files.iter().map(|file| &file.entry).collect();
    assert_eq!(entries, mount.entries.values().collect::<Vec<_>>());
    let mut sink = Sink::default();
    stream(&store.blobs, list, &mut sink).await.unwrap();
    assert_content(list, &sink, mount);
}

/// Compares all content that arrived. Data never arrives where there was a hole.
pub fn assert_content(list: &FileList, sink: &Sink, mount: &Mount) {
    let none = BTreeMap::new();
    for (number, file) in (0..).zip(&list.files) {
        let Some(content) = mount.contents.get(&file.entry.path) else { continue };
        let data = sink.0.get(&number).unwrap_or(&none);
        let found = Content { size: content.size, data: data.clone() };
        assert!(found.bytes() == content.bytes(), "{}", file.entry.path);
        let (found, expected) = [&found, content].map(|content| content.data.values().map(Bytes::len).sum::<usize>()).into();
        assert_eq!(found, expected, "{} has its holes", file.entry.path);
    }
}

/// Returns bytes that no compression makes smaller.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
