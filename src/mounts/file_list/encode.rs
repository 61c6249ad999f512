//! Encodes a list. Paths are written as what differs from the path before, and numbers as differences, because lists are long.

use std::collections::HashMap;
use std::io::{self, Write};

use super::number::{Writer, invalid};
use super::{FileList, MAGIC, Part, SavedFile};
use crate::mounts::entry::MountEntryKind;

/// The level of compression. Most of a list is digests, which no level makes shorter.
const LEVEL: i32 = 6;

/// What many entries have in common.
type Attributes<'a> = (u32, u32, u32, &'a std::collections::BTreeMap<String, Vec<u8>>);

/// Encodes a list that passes [`FileList::check`].
///
/// # Errors
/// If the list does not pass.
pub fn encode(list: &FileList) -> io::Result<Vec<u8>> {
    let encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    let mut to = Writer(io::BufWriter::with_capacity(64 << 10, encoder));
    to.0.write_all(MAGIC)?;
    packs(&mut to, list)?;
    chunks(&mut to, list)?;
    files(&mut to, list)?;
    to.0.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
}

fn packs(to: &mut Writer<impl Write>, list: &FileList) -> io::Result<()> {
    to.count(list.packs.len())?;
    for pack in &list.packs {
        to.0.write_all(pack.blob.digest.as_bytes())?;
        to.count(pack.frames.len())?;
        for frame in &pack.frames {
            to.number(frame.packed.into())?;
            to.number(frame.length.into())?;
        }
    }
    Ok(())
}

fn chunks(to: &mut Writer<impl Write>, list: &FileList) -> io::Result<()> {
    to.count(list.chunks.len())?;
    let (mut pack, mut frame, mut end) = (0, 0, 0);
    for chunk in &list.chunks {
        to.0.write_all(chunk.digest.as_bytes())?;
        to.number(chunk.length.into())?;
        let next_pack = chunk.pack.checked_sub(pack).ok_or_else(unordered)?;
        if next_pack > 0 {
            (frame, end) = (0, 0);
        }
        let next_frame = chunk.frame.checked_sub(frame).ok_or_else(unordered)?;
        if next_frame > 0 {
            end = 0;
        }
        to.number(next_pack.into())?;
        to.number(next_frame.into())?;
        to.number(chunk.start.checked_sub(end).ok_or_else(unordered)?.into())?;
        (pack, frame, end) = (chunk.pack, chunk.frame, chunk.start.saturating_add(chunk.length));
    }
    Ok(())
}

fn files(to: &mut Writer<impl Write>, list: &FileList) -> io::Result<()> {
    let mut numbers: HashMap<Attributes<'_>, u64> = HashMap::new();
    let mut distinct = Vec::new();
    for file in &list.files {
        numbers.entry(attributes(file)).or_insert_with(|| {
            distinct.push(attributes(file));
            distinct.len() as u64 - 1
        });
    }
    to.count(distinct.len())?;
    for (mode, uid, gid, xattrs) in distinct {
        [mode, uid, gid].into_iter().try_for_each(|number| to.number(number.into()))?;
        to.count(xattrs.len())?;
        for (name, value) in xattrs {
            to.bytes(name.as_bytes())?;
            to.bytes(value)?;
        }
    }
    let has_links = list.files.iter().any(|file| matches!(file.entry.kind, MountEntryKind::HardLink { .. }));
    let by_path = if has_links { list.by_path() } else { Vec::new() };
    to.count(list.files.len())?;
    let (mut path, mut modified, mut used, mut next) = ("", 0i64, 0u64, 0u32);
    for file in &list.files {
        let entry = &file.entry;
        let shared = entry.path.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
        to.count(shared)?;
        to.bytes(&entry.path.as_bytes()[shared..])?;
        to.number(numbers.get(&attributes(file)).copied().unwrap_or_default())?;
        to.signed(entry.modified.wrapping_sub(modified))?;
        to.signed(file.used.wrapping_sub(used).cast_signed())?;
        match &entry.kind {
            MountEntryKind::Directory => to.number(0)?,
            MountEntryKind::File { size } => {
                to.number(1)?;
                to.number(*size)?;
                parts(to, list.parts_of(file), list, &mut next)?;
            }
            MountEntryKind::HardLink { of } => {
                to.number(2)?;
                to.number(list.place(&by_path, of).ok_or_else(|| invalid("a hard link has no file"))?.into())?;
            }
            MountEntryKind::Link { target } => {
                to.number(3)?;
                to.bytes(target.as_bytes())?;
            }
            MountEntryKind::Pipe => to.number(4)?,
        }
        (path, modified, used) = (&entry.path, entry.modified, file.used);
    }
    Ok(())
}

fn parts(to: &mut Writer<impl Write>, parts: &[Part], list: &FileList, next: &mut u32) -> io::Result<()> {
    to.count(parts.len())?;
    let mut end = 0u64;
    for part in parts {
        to.number(part.offset.checked_sub(end).ok_or_else(unordered)?)?;
        to.signed(i64::from(part.chunk) - i64::from(*next))?;
        *next = part.chunk.wrapping_add(1);
        end = part.offset.saturating_add(list.chunk(part.chunk).map_or(0, |chunk| u64::from(chunk.length)));
    }
    Ok(())
}

fn attributes(file: &SavedFile) -> Attributes<'_> {
    (file.entry.mode, file.entry.uid, file.entry.gid, &file.entry.xattrs)
}

fn unordered() -> io::Error {
    invalid("the list is not in order")
}
