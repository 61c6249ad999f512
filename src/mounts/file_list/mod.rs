//! The list of a mount's files, and in which packs their content is.
//!
//! Anybody who can write to the store may have written a list. So hakobi checks every number and path of it before use.

use std::ops::Range;

use super::entry::{MountEntry, MountEntryKind};
use crate::domain::{Descriptor, Digest};

mod check;
mod decode;
mod encode;
mod number;

pub use decode::decode;
pub use encode::encode;

/// The media type of an encoded list.
pub const LIST_TYPE: &str = "application/vnd.hakobi.mount.list.v1+zstd";

/// The media type of a pack.
pub const PACK_TYPE: &str = "application/vnd.hakobi.mount.pack.v1";

/// The largest encoded list, in bytes.
pub const LARGEST_LIST: u64 = 64 << 20;

/// The largest chunk, in bytes: it fits into one payload.
pub const LARGEST_CHUNK: u32 = 1 << 20;

/// The largest frame, in bytes of content.
pub const LARGEST_FRAME: u32 = 1 << 20;

/// The largest pack, in bytes.
pub const LARGEST_PACK: u64 = 16 << 20;

/// The most entries of a list.
pub const MOST_ENTRIES: usize = 500_000;

/// The begin of each list before compression, with the version of the format.
const MAGIC: &[u8] = b"hakobi-mount\x01";

/// Everything of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileList {
    /// All entries, parents first; the first one is the root.
    pub files: Vec<SavedFile>,
    /// The parts of all files, file by file, and in a file by their offsets.
    pub parts: Vec<Part>,
    /// The chunks, by pack, frame and start. Each is used by a part.
    pub chunks: Vec<Chunk>,
    /// The packs.
    pub packs: Vec<Pack>,
}

/// An entry of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// The entry.
    pub entry: MountEntry,
    /// When the last build that used it ended, in seconds since 1970. 0 if unknown.
    pub used: u64,
    /// Its parts in [`FileList::parts`]. Empty if the entry is no file.
    pub parts: Range<u32>,
}

/// A part of a file: a chunk at a position. What of a file no part covers is a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The position in the file.
    pub offset: u64,
    /// The place in [`FileList::chunks`].
    pub chunk: u32,
}

/// Where some content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub length: u32,
    /// The place in [`FileList::packs`].
    pub pack: u32,
    /// The place in [`Pack::frames`].
    pub frame: u32,
    /// The position in the frame's content.
    pub start: u32,
}

/// A blob of frames, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The blob.
    pub blob: Descriptor,
    /// The frames.
    pub frames: Vec<Frame>,
}

/// A part of a pack that is compressed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The position in the pack.
    pub offset: u32,
    /// The number of compressed bytes.
    pub packed: u32,
    /// The number of bytes of content.
    pub length: u32,
}

impl FileList {
    /// Returns the parts of a file.
    #[must_use]
    pub fn parts_of(&self, file: &SavedFile) -> &[Part] {
        usize::try_from(file.parts.start)
            .ok()
            .zip(usize::try_from(file.parts.end).ok())
            .and_then(|(start, end)| self.parts.get(start..end))
            .unwrap_or_default()
    }

    /// Returns the chunk at a place.
    #[must_use]
    pub fn chunk(&self, place: u32) -> Option<&Chunk> {
        self.chunks.get(usize::try_from(place).ok()?)
    }

    /// Returns the number of bytes of a file, without holes.
    #[must_use]
    pub fn content_of(&self, file: &SavedFile) -> u64 {
        self.parts_of(file).iter().filter_map(|part| self.chunk(part.chunk)).map(|chunk| u64::from(chunk.length)).sum()
    }

    /// Returns the number of bytes of all files, without holes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| self.content_of(file)).sum()
    }

    /// Returns the number of entries that are no directories.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.files.iter().filter(|file| file.entry.kind != MountEntryKind::Directory).count() as u64
    }

    /// Returns the places of the entries in the order of their paths' bytes.
    #[must_use]
    pub fn by_path(&self) -> Vec<u32> {
        let mut places: Vec<u32> = (0..).take(self.files.len()).collect();
        places.sort_unstable_by_key(|place| self.path(*place));
        places
    }

    /// Returns the path at a place.
    fn path(&self, place: u32) -> &str {
        usize::try_from(place).ok().and_then(|place| self.files.get(place)).map_or("", |file| &file.entry.path)
    }

    /// Returns the place of a path; `by_path` comes from [`FileList::by_path`].
    #[must_use]
    pub fn place(&self, by_path: &[u32], path: &str) -> Option<u32> {
        let at = by_path.binary_search_by(|place| self.path(*place).cmp(path)).ok()?;
        by_path.get(at).copied()
    }

    /// Checks that hakobi can create this mount: paths, numbers, and sizes.
    ///
    /// # Errors
    /// If something is wrong: what.
    pub fn check(&self) -> Result<(), String> {
        check::check(self)
    }
}
