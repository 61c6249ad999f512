//! Decodes a list that anybody may have written.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use super::number::{Reader, invalid};
use super::{Chunk, FileList, Frame, MAGIC, MOST_ENTRIES, PACK_TYPE, Pack, Part, SavedFile};
use crate::domain::{Descriptor, Digest};
use crate::mounts::entry::{MountEntry, MountEntryKind};

/// The largest window of the decoder as a power of two: memory that a hostile list can take.
const WINDOW: u32 = 23;

/// The most bytes of a path or target, spelled: four for each byte of the longest that Linux accepts.
const LONGEST_PATH: usize = 4 * 4096;

/// The most bytes of an extended attribute, as in Linux.
const LONGEST_VALUE: usize = 64 << 10;

/// What many entries have in common.
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The memory that a copy takes.
    cost: u64,
}

/// Decodes and checks a list.
///
/// # Errors
/// If it is not a list that hakobi can bring in: what is wrong.
pub fn decode(bytes: &[u8]) -> Result<FileList, String> {
    let list = read(bytes).map_err(|error| error.to_string())?;
    list.check()?;
    Ok(list)
}

fn read(bytes: &[u8]) -> io::Result<FileList> {
    let mut decoder = zstd::Decoder::new(bytes)?;
    decoder.window_log_max(WINDOW)?;
    let mut from = Reader::new(BufReader::with_capacity(64 << 10, decoder));
    if from.array()? != *MAGIC.first_chunk::<13>().unwrap_or(&[0; 13]) {
        return Err(invalid("another format or version"));
    }
    let packs = packs(&mut from)?;
    let chunks = chunks(&mut from)?;
    let mut list = FileList { packs, chunks, ..FileList::default() };
    files(&mut from, &mut list)?;
    from.end()?;
    Ok(list)
}

fn packs(from: &mut Reader<impl Read>) -> io::Result<Vec<Pack>> {
    let mut packs = Vec::new();
    for _ in 0..from.count(size_of::<Pack>() + PACK_TYPE.len())? {
        let digest = Digest::from_bytes(from.array()?);
        let (mut frames, mut offset) = (Vec::new(), 0u32);
        for _ in 0..from.count(size_of::<Frame>())? {
            let frame = Frame { offset, packed: from.number()?, length: from.number()? };
            offset = offset.checked_add(frame.packed).ok_or_else(|| invalid("a pack is too large"))?;
            frames.push(frame);
        }
        packs.push(Pack { blob: Descriptor::new(PACK_TYPE, digest, offset.into()), frames });
    }
    Ok(packs)
}

fn chunks(from: &mut Reader<impl Read>) -> io::Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let (mut pack, mut frame, mut end) = (0u32, 0u32, 0u32);
    let sum = |one: u32, other: u32| one.checked_add(other).ok_or_else(|| invalid("a number is too large"));
    for _ in 0..from.count(size_of::<Chunk>())? {
        let digest = Digest::from_bytes(from.array()?);
        let length = from.number()?;
        let (next_pack, next_frame, gap) = (from.number()?, from.number()?, from.number()?);
        if next_pack > 0 {
            (frame, end) = (0, 0);
        }
        if next_frame > 0 {
            end = 0;
        }
        (pack, frame) = (sum(pack, next_pack)?, sum(frame, next_frame)?);
        let start = sum(end, gap)?;
        end = sum(start, length)?;
        chunks.push(Chunk { digest, length, pack, frame, start });
    }
    Ok(chunks)
}

fn attributes(from: &mut Reader<impl Read>) -> io::Result<Attributes> {
    let (mode, uid, gid) = (from.number()?, from.number()?, from.number()?);
    let mut xattrs = BTreeMap::new();
    let mut cost = 0;
    for _ in 0..from.count(64)? {
        let (name, value) = (text(from.bytes(LONGEST_PATH)?)?, from.bytes(LONGEST_VALUE)?);
        cost += 64 + name.len() as u64 + value.len() as u64;
        xattrs.insert(name, value);
    }
    Ok(Attributes { mode, uid, gid, xattrs, cost })
}

fn files(from: &mut Reader<impl Read>, list: &mut FileList) -> io::Result<()> {
    let mut distinct = Vec::new();
    for _ in 0..from.count(size_of::<Attributes>())? {
        distinct.push(attributes(from)?);
    }
    let count = from.count(size_of::<SavedFile>())?;
    if count > MOST_ENTRIES {
        return Err(invalid("too many entries"));
    }
    let (mut path, mut modified, mut used, mut next) = (Vec::new(), 0i64, 0u64, 0u32);
    for _ in 0..count {
        let shared: usize = from.number()?;
        if shared > path.len() {
            return Err(invalid("a path has no begin"));
        }
        path.truncate(shared);
        path.extend(from.bytes(LONGEST_PATH)?);
        if path.len() > LONGEST_PATH {
            return Err(invalid("a path is too long"));
        }
        let number: usize = from.number()?;
        let attributes = distinct.get(number).ok_or_else(|| invalid("attributes are missing"))?;
        from.spend(attributes.cost + path.len() as u64)?;
        modified = modified.wrapping_add(from.signed()?);
        used = used.wrapping_add(from.signed()?.cast_unsigned());
        let begin = place(list.parts.len())?;
        let kind = match from.number::<u8>()? {
            0 => MountEntryKind::Directory,
            1 => {
                let size = from.number()?;
                parts(from, list, &mut next)?;
                MountEntryKind::File { size }
            }
            2 => {
                let number: usize = from.number()?;
                let of = list.files.get(number).ok_or_else(|| invalid("a hard link has no file"))?.entry.path.clone();
                from.spend(of.len() as u64)?;
                MountEntryKind::HardLink { of }
            }
            3 => MountEntryKind::Link { target: text(from.bytes(LONGEST_PATH)?)? },
            4 => MountEntryKind::Pipe,
            _ => return Err(invalid("an unknown kind of entry")),
        };
        let Attributes { mode, uid, gid, ref xattrs, .. } = *attributes;
        let entry = MountEntry { path: text(path.clone())?, kind, mode, uid, gid, modified, xattrs: xattrs.clone() };
        list.files.push(SavedFile { entry, used, parts: begin..place(list.parts.len())? });
    }
    Ok(())
}

fn parts(from: &mut Reader<impl Read>, list: &mut FileList, next: &mut u32) -> io::Result<()> {
    let mut end = 0u64;
    for _ in 0..from.count(size_of::<Part>())? {
        let offset = end.checked_add(from.number()?).ok_or_else(|| invalid("a part is outside of its file"))?;
        let chunk = i64::from(*next).checked_add(from.signed()?).and_then(|chunk| u32::try_from(chunk).ok());
        let chunk = chunk.ok_or_else(|| invalid("a chunk is missing"))?;
        let length = list.chunk(chunk).ok_or_else(|| invalid("a chunk is missing"))?.length;
        end = offset.checked_add(length.into()).ok_or_else(|| invalid("a part is outside of its file"))?;
        *next = chunk.wrapping_add(1);
        list.parts.push(Part { offset, chunk });
    }
    Ok(())
}

fn place(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| invalid("the list is too large"))
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| invalid("a name is not spelled as text"))
}
