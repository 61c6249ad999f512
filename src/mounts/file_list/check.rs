//! Checks that a list is possible: no path leads out of the mount, and every number is within its range.

use super::{FileList, LARGEST_CHUNK, LARGEST_FRAME, LARGEST_PACK, MOST_ENTRIES};
use crate::domain::{bytes_of, shown, spelled};
use crate::mounts::entry::{MountEntry, MountEntryKind};

/// The largest file of ext4, in bytes.
const LARGEST_FILE: u64 = 16 << 40;

pub fn check(list: &FileList) -> Result<(), String> {
    packs(list)?;
    chunks(list)?;
    parts(list)?;
    paths(list)
}

fn packs(list: &FileList) -> Result<(), String> {
    for pack in &list.packs {
        let mut end = 0u64;
        for frame in &pack.frames {
            let is_right = u64::from(frame.offset) == end && frame.packed > 0 && (1..=LARGEST_FRAME).contains(&frame.length);
            ensure(is_right, || "a frame is out of place".to_owned())?;
            end += u64::from(frame.packed);
        }
        ensure(end == pack.blob.size && (1..=LARGEST_PACK).contains(&end), || "a pack has another size".to_owned())?;
    }
    Ok(())
}

fn chunks(list: &FileList) -> Result<(), String> {
    let mut before = None;
    for chunk in &list.chunks {
        let place = (chunk.pack, chunk.frame, chunk.start);
        ensure(before < Some(place), || "the chunks are not in order".to_owned())?;
        before = Some(place);
        let pack = usize::try_from(chunk.pack).ok().and_then(|at| list.packs.get(at));
        let frame = pack.and_then(|pack| pack.frames.get(usize::try_from(chunk.frame).ok()?));
        let frame = frame.ok_or_else(|| "a chunk has no frame".to_owned())?;
        let end = u64::from(chunk.start) + u64::from(chunk.length);
        let is_right = (1..=LARGEST_CHUNK).contains(&chunk.length) && end <= u64::from(frame.length);
        ensure(is_right, || "a chunk is outside of its frame".to_owned())?;
    }
    Ok(())
}

fn parts(list: &FileList) -> Result<(), String> {
    let mut next = 0u32;
    let mut is_used = vec![false; list.chunks.len()];
    for file in &list.files {
        let wrong = |why: &str| Err(format!("{}: {why}", shown(&file.entry.path)));
        let size = match file.entry.kind {
            MountEntryKind::File { size } => size,
            _ => 0,
        };
        if file.parts.start != next || file.parts.end < next || size > LARGEST_FILE {
            return wrong("wrong parts or size");
        }
        next = file.parts.end;
        let mut end = 0u64;
        for part in list.parts_of(file) {
            let Some(chunk) = list.chunk(part.chunk) else { return wrong("a chunk is missing") };
            let after = part.offset.checked_add(chunk.length.into());
            match after {
                Some(after) if part.offset >= end && after <= size => end = after,
                _ => return wrong("a part is outside of the file"),
            }
            if let Some(is_used) = usize::try_from(part.chunk).ok().and_then(|at| is_used.get_mut(at)) {
                *is_used = true;
            }
        }
    }
    ensure(next as usize == list.parts.len(), || "parts are left over".to_owned())?;
    ensure(is_used.into_iter().all(|is_used| is_used), || "a chunk is not used".to_owned())
}

fn paths(list: &FileList) -> Result<(), String> {
    ensure(list.files.len() <= MOST_ENTRIES, || format!("more than {MOST_ENTRIES} entries"))?;
    let (root, rest) = list.files.split_first().ok_or_else(|| "there is no root".to_owned())?;
    let is_root = root.entry.path.is_empty() && root.entry.kind == MountEntryKind::Directory;
    ensure(is_root, || "the first entry is not the root".to_owned())?;
    let by_path = list.by_path();
    let entry = |path: &str| {
        let place = list.place(&by_path, path)?;
        list.files.get(usize::try_from(place).ok()?).map(|file| (place, &file.entry))
    };
    let mut here = 0;
    for file in rest {
        here += 1;
        let MountEntry { path, kind, mode, .. } = &file.entry;
        let wrong = |why: &str| Err(format!("{}: {why}", shown(path)));
        // Another spelling of the same bytes could hide `/` or `..`.
        if path.contains('\0')
            || *spelled(&bytes_of(path)) != **path
            || path.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return wrong("not a path in the mount");
        }
        if mode & !0o7777 != 0 {
            return wrong("not a mode");
        }
        // A path that occurs twice is found at one of its places only.
        if entry(path).is_none_or(|(place, _)| place != here) {
            return wrong("occurs twice");
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        match entry(parent) {
            Some((place, parent)) if place < here && parent.kind == MountEntryKind::Directory => {}
            _ => return wrong("its directory is missing"),
        }
        match kind {
            MountEntryKind::HardLink { of } => match entry(of) {
                Some((place, of)) if place < here && matches!(of.kind, MountEntryKind::File { .. }) => {}
                _ => return wrong("a hard link without its file"),
            },
            MountEntryKind::Link { target } if target.is_empty() || target.contains('\0') => {
                return wrong("a link without a target");
            }
            _ => {}
        }
    }
    Ok(())
}

fn ensure(is_right: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(why()) }
}
