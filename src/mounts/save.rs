//! Saves a mount: asks the process for what the store lacks, uploads it, and then the list of files.

use std::collections::HashSet;
use std::io;

use futures::{StreamExt as _, TryStreamExt as _};

use super::chunk::Chunker;
use super::collect::{Collected, Collector};
use super::entry::{ListedEntry, MountEntryKind};
use super::error::{Error, Result};
use super::file_list::{self, Chunk, FileList, LIST_TYPE, Pack, SavedFile};
use super::parts::PartSource;
use super::saved::{Earlier, Limits, Listing, Saved, SavedMount};
use super::select::{Decision, Selection, select};
use crate::domain::{Descriptor, Digest};
use crate::store::Blobs;
use crate::transfer::BytesSource;

/// The most packs that hakobi looks for at a time.
const LOOKS: usize = 16;

/// Saves a mount. `now` is in seconds since 1970. If nothing changed, returns the earlier mount and uploads nothing.
///
/// # Errors
/// If the source or the store fails, or the listing is none that hakobi could bring in. Nothing refers to what was uploaded then.
pub async fn save(
    blobs: &Blobs,
    earlier: Option<Earlier<'_>>,
    listing: Listing,
    source: &mut dyn PartSource,
    limits: &Limits,
    now: u64,
) -> Result<Saved> {
    let nothing = FileList::default();
    let before = earlier.map_or(&nothing, |earlier| earlier.list);
    let selection = select(before, are_there(blobs, before).await?, &listing.entries, limits, now);
    let mut saved = Saved {
        mount: SavedMount {
            list: Descriptor::new(LIST_TYPE, Digest::hash(&[]), 0),
            packs: Vec::new(),
            bytes: 0,
            files: 0,
            summary: listing.summary,
            at: listing.at,
            newest: listing.newest,
        },
        is_same: false,
        dropped_files: selection.dropped_files,
        dropped_bytes: selection.dropped_bytes,
        gone: 0,
        read: 0,
        new: 0,
        uploaded: 0,
    };
    if let Some(earlier) = earlier.filter(|_| selection.is_same)
        && blobs.size(&earlier.mount.list.digest).await? == Some(earlier.mount.list.size)
    {
        let SavedMount { list, packs, bytes, files, .. } = earlier.mount.clone();
        saved.mount = SavedMount { list, packs, bytes, files, ..saved.mount };
        saved.is_same = true;
        return Ok(saved);
    }
    let mut collector = Collector::new(blobs, before, &selection.is_usable);
    let mut gone = receive(&listing.entries, &selection, source, &mut collector, &mut saved.read).await?;
    gone.extend(source.gone());
    let collected = collector.finish().await?;
    saved.gone = gone.len() as u64;
    saved.new = collected.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
    saved.uploaded = collected.packed.packs.iter().map(|pack| pack.blob.size).sum();
    let list = compose(before, listing.entries, &selection, &gone, collected)?;
    list.check().map_err(Error::Unfit)?;
    saved.mount.packs = list.packs.iter().map(|pack| pack.blob.clone()).collect();
    (saved.mount.bytes, saved.mount.files) = (list.bytes(), list.count());
    let encoded = tokio::task::spawn_blocking(move || file_list::encode(&list)).await.map_err(io::Error::other)?;
    let encoded = encoded.map_err(|error| Error::Unfit(error.to_string()))?;
    if encoded.len() as u64 > file_list::LARGEST_LIST {
        return Err(Error::Unfit("its list of files is too large".to_owned()));
    }
    let encoded = BytesSource::new(encoded.into());
    blobs.keep(&encoded).await?;
    let identity = crate::transfer::BlobSource::identity(&encoded).await?;
    saved.mount.list = Descriptor::new(LIST_TYPE, identity.digest, identity.size);
    saved.uploaded += identity.size;
    Ok(saved)
}

/// Returns which packs the store has, undamaged as far as this run knows.
async fn are_there(blobs: &Blobs, before: &FileList) -> Result<Vec<bool>> {
    let look = |pack: &Pack| {
        let (blobs, blob) = (blobs.clone(), pack.blob.clone());
        async move { Ok(blobs.size(&blob.digest).await? == Some(blob.size)) }
    };
    futures::stream::iter(before.packs.iter().map(look)).buffered(LOOKS).try_collect().await
}

/// Collects what the source sends. Returns the files that it sent wrongly.
async fn receive(
    listed: &[ListedEntry],
    selection: &Selection,
    source: &mut dyn PartSource,
    collector: &mut Collector<'_>,
    read: &mut u64,
) -> Result<HashSet<u32>> {
    source.send(&selection.asked()).await?;
    let (mut chunker, mut cuts, mut wrong) = (Chunker::default(), Vec::new(), HashSet::new());
    let (mut file, mut end, mut ended) = (None, 0u64, HashSet::new());
    while let Some(part) = source.next().await? {
        let number = usize::try_from(part.file).ok();
        let is_asked = number.and_then(|number| selection.decisions.get(number)) == Some(&Decision::Ask);
        let Some(MountEntryKind::File { size }) =
            number.filter(|_| is_asked).and_then(|at| listed.get(at)).map(|entry| &entry.entry.kind)
        else {
            return Err(io::Error::other("a part of a file came that was not asked for").into());
        };
        if file != Some(part.file) {
            if !ended.insert(part.file) {
                return Err(io::Error::other("the parts of a file came between those of others").into());
            }
            (file, end) = (Some(part.file), 0);
        }
        *read += part.data.len() as u64;
        let after = part.offset.saturating_add(part.data.len() as u64);
        if part.offset < end || after > *size {
            wrong.insert(part.file);
            continue;
        }
        end = after;
        chunker.push(part.file, *size, part.offset, &part.data, &mut cuts);
        collector.add(&mut cuts).await?;
    }
    chunker.finish(&mut cuts);
    collector.add(&mut cuts).await?;
    Ok(wrong)
}

/// Puts the new list together.
fn compose(
    before: &FileList,
    listed: Vec<ListedEntry>,
    selection: &Selection,
    gone: &HashSet<u32>,
    collected: Collected,
) -> Result<FileList> {
    let mut list = FileList::default();
    let gone_paths: HashSet<String> =
        gone.iter().filter_map(|number| Some(listed.get(usize::try_from(*number).ok()?)?.entry.path.clone())).collect();
    let is_left_out = |number: u32, entry: &ListedEntry| match &entry.entry.kind {
        MountEntryKind::HardLink { of } => gone_paths.contains(of),
        _ => gone.contains(&number),
    };
    for (number, (entry, (decision, used))) in (0..).zip(listed.into_iter().zip(selection.decisions.iter().zip(&selection.used)))
    {
        if *decision == Decision::Drop || is_left_out(number, &entry) {
            continue;
        }
        let begin = list.parts.len();
        match decision {
            Decision::Earlier(place) => {
                let file = usize::try_from(*place).ok().and_then(|place| before.files.get(place));
                list.parts.extend_from_slice(file.map(|file| before.parts_of(file)).unwrap_or_default());
            }
            Decision::Ask => {
                let parts = collected.files.get(&number).and_then(|parts| collected.parts.get(parts.clone()));
                list.parts.extend_from_slice(parts.unwrap_or_default());
            }
            Decision::Plain | Decision::Drop => {}
        }
        let parts = place(begin)?..place(list.parts.len())?;
        list.files.push(SavedFile { entry: entry.entry, used: *used, parts });
    }
    number_chunks(&mut list, before, collected)?;
    Ok(list)
}

/// Fills in the packs and chunks that the parts use, and gives the parts their new numbers.
fn number_chunks(list: &mut FileList, before: &FileList, collected: Collected) -> Result<()> {
    const UNUSED: u32 = u32::MAX;
    let Collected { chunks, packed, .. } = collected;
    let lost = || Error::Unfit("a chunk was lost".to_owned());
    let mut numbers = vec![UNUSED; before.chunks.len() + chunks.len()];
    for part in &list.parts {
        *numbers.get_mut(part.chunk as usize).ok_or_else(lost)? = 0;
    }
    let earlier_packs = before.packs.len();
    let mut packs = vec![UNUSED; earlier_packs + packed.packs.len()];
    let all_packs: Vec<Pack> = before.packs.iter().cloned().chain(packed.packs).collect();
    let new = chunks.into_iter().map(|chunk| -> Result<Chunk> {
        let (pack, frame) = *packed.places.get(chunk.frame as usize).ok_or_else(lost)?;
        let pack = pack + place(earlier_packs)?;
        Ok(Chunk { digest: chunk.digest, length: chunk.length, pack, frame, start: chunk.start })
    });
    for (number, chunk) in numbers.iter_mut().zip(before.chunks.iter().cloned().map(Result::<Chunk>::Ok).chain(new)) {
        if *number == UNUSED {
            continue;
        }
        let mut chunk = chunk?;
        let pack = packs.get_mut(chunk.pack as usize).ok_or_else(lost)?;
        if *pack == UNUSED {
            *pack = place(list.packs.len())?;
            list.packs.push(all_packs.get(chunk.pack as usize).ok_or_else(lost)?.clone());
        }
        chunk.pack = *pack;
        *number = place(list.chunks.len())?;
        list.chunks.push(chunk);
    }
    for part in &mut list.parts {
        part.chunk = *numbers.get(part.chunk as usize).ok_or_else(lost)?;
    }
    Ok(())
}

fn place(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::Unfit("it has too many parts".to_owned()))
}
