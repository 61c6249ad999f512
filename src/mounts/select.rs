//! Decides what of a mount to save: which files to leave out, and which to ask the process for.

use std::collections::{BTreeSet, HashSet};

use super::entry::{ListedEntry, MountEntryKind};
use super::file_list::{FileList, SavedFile};
use super::saved::Limits;

/// A use is only worth a new list if it is this much later than the recorded one, in seconds.
const DAY: u64 = 24 * 3600;

/// The most bytes of content that hakobi packs again in one save, because their packs have little else.
const MOST_REPACKED: u64 = 64 << 20;

/// The most bytes of files that it asks for to do so.
const MOST_ASKED: u64 = 512 << 20;

/// The content of a small pack, in bytes. Each save leaves one.
const SMALL_PACK: u64 = 2 << 20;

/// The most small packs, before hakobi puts them together.
const MOST_SMALL: usize = 16;

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Save it without content.
    Plain,
    /// Save it with the content of the file at this place of the earlier list.
    Earlier(u32),
    /// Ask the process for its content.
    Ask,
    /// Leave it out.
    Drop,
}

/// What to save.
#[derive(Debug, Default)]
pub struct Selection {
    /// What to do with each entry.
    pub decisions: Vec<Decision>,
    /// When each entry was last used, in seconds since 1970. 0 if unknown.
    pub used: Vec<u64>,
    /// Whether the chunks of each earlier pack may be used.
    pub is_usable: Vec<bool>,
    /// Whether the earlier list describes the mount.
    pub is_same: bool,
    /// The number of dropped files and hard links.
    pub dropped_files: u64,
    /// The bytes of the dropped files.
    pub dropped_bytes: u64,
}

impl Selection {
    /// Returns the numbers of the files to ask for.
    pub fn asked(&self) -> Vec<u32> {
        (0..).zip(&self.decisions).filter(|(_, decision)| **decision == Decision::Ask).map(|(number, _)| number).collect()
    }
}

/// Decides what to save. `is_there` says which earlier packs the store has.
pub fn select(before: &FileList, is_there: Vec<bool>, listed: &[ListedEntry], limits: &Limits, now: u64) -> Selection {
    let by_path = before.by_path();
    let file = |place: u32| usize::try_from(place).ok().and_then(|place| before.files.get(place));
    let matched: Vec<Option<u32>> = listed.iter().map(|entry| before.place(&by_path, &entry.entry.path)).collect();
    let earlier = |number: usize| matched.get(number).copied().flatten().and_then(file);
    let mut selection = Selection { is_usable: is_there, ..Selection::default() };
    for (number, entry) in listed.iter().enumerate() {
        let known = earlier(number);
        // An unused file that the earlier list lacks was left out because of the limits, and must not become the newest one.
        let last = known.map_or(if before.files.is_empty() { now } else { 0 }, |known| known.used);
        selection.used.push(if entry.used { now } else { last });
        selection.decisions.push(match (entry.entry.kind == MountEntryKind::File { size: 0 }, &entry.entry.kind) {
            (false, MountEntryKind::File { .. }) => match (matched[number], known) {
                (Some(place), Some(known)) if is_alike(entry, known) => Decision::Earlier(place),
                _ => Decision::Ask,
            },
            _ => Decision::Plain,
        });
    }
    let size = |number: usize| match (selection.decisions[number], &listed[number].entry.kind) {
        (Decision::Earlier(_), _) => earlier(number).map_or(0, |known| before.content_of(known)),
        (_, MountEntryKind::File { size }) => *size,
        _ => 0,
    };
    let sizes: Vec<u64> = (0..listed.len()).map(size).collect();
    selection.drop_beyond(listed, &sizes, limits);
    // Files of packs that are gone must come again.
    selection.ask_for_unusable(before);
    selection.is_same = selection.is_same(before, listed);
    if !selection.is_same {
        selection.repack(before);
        selection.ask_for_unusable(before);
    }
    selection
}

/// Returns whether a file's content is as it was saved.
fn is_alike(entry: &ListedEntry, known: &SavedFile) -> bool {
    !entry.changed && entry.entry.kind == known.entry.kind && entry.entry.modified == known.entry.modified
}

impl Selection {
    /// Drops files until the rest is within the limits: those that do not fit at all, and then those that were not used for longest.
    fn drop_beyond(&mut self, listed: &[ListedEntry], sizes: &[u64], limits: &Limits) {
        let is_file = |number: &usize| matches!(listed[*number].entry.kind, MountEntryKind::File { .. });
        let links = |entry: &ListedEntry| match &entry.entry.kind {
            MountEntryKind::HardLink { of } => Some(of.clone()),
            _ => None,
        };
        let mut names: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        listed.iter().filter_map(links).for_each(|of| *names.entry(of).or_default() += 1);
        let names = |number: usize| 1 + names.get(&listed[number].entry.path).copied().unwrap_or_default();
        let mut files: Vec<usize> = (0..listed.len()).filter(is_file).collect();
        let (mut bytes, mut count) = files
            .iter()
            .fold((0u64, 0u64), |(bytes, count), number| (bytes.saturating_add(sizes[*number]), count + names(*number)));
        if bytes <= limits.most_bytes && count <= limits.most_files {
            return;
        }
        files.sort_unstable_by_key(|number| {
            let entry = &listed[*number].entry;
            (sizes[*number] <= limits.most_bytes, self.used[*number], entry.modified, &entry.path)
        });
        let mut dropped = HashSet::new();
        for number in files {
            if bytes <= limits.most_bytes && count <= limits.most_files {
                break;
            }
            bytes -= sizes[number].min(bytes);
            count -= names(number);
            self.decisions[number] = Decision::Drop;
            dropped.insert(listed[number].entry.path.as_str());
            self.dropped_files += names(number);
            self.dropped_bytes += sizes[number];
        }
        for (number, entry) in listed.iter().enumerate() {
            if links(entry).is_some_and(|of| dropped.contains(of.as_str())) {
                self.decisions[number] = Decision::Drop;
            }
        }
    }

    /// Asks for the files that have a chunk in an unusable pack.
    fn ask_for_unusable(&mut self, before: &FileList) {
        for decision in &mut self.decisions {
            let Decision::Earlier(place) = *decision else { continue };
            let packs = usize::try_from(place).ok().and_then(|place| before.files.get(place)).map(|file| packs_of(before, file));
            if packs.is_none_or(|packs| !packs.iter().all(|pack| self.is_usable.get(*pack).copied().unwrap_or_default())) {
                *decision = Decision::Ask;
            }
        }
    }

    fn is_same(&self, before: &FileList, listed: &[ListedEntry]) -> bool {
        let kept = self.decisions.iter().zip(listed).zip(&self.used).filter(|((decision, _), _)| **decision != Decision::Drop);
        let mut left = before.files.iter();
        for ((decision, entry), used) in kept {
            let Some(file) = left.next() else { return false };
            if *decision == Decision::Ask || file.entry != entry.entry || used.saturating_sub(file.used) > DAY {
                return false;
            }
        }
        left.next().is_none()
    }

    /// Makes packs unusable whose remaining content is better in new packs.
    fn repack(&mut self, before: &FileList) {
        let mut live = vec![0u64; before.packs.len()];
        for chunk in &before.chunks {
            if let Some(live) = usize::try_from(chunk.pack).ok().and_then(|pack| live.get_mut(pack)) {
                *live += u64::from(chunk.length);
            }
        }
        let mut cost = vec![0u64; before.packs.len()];
        for decision in &self.decisions {
            let Decision::Earlier(place) = *decision else { continue };
            let Some(file) = usize::try_from(place).ok().and_then(|place| before.files.get(place)) else { continue };
            let content = before.content_of(file);
            packs_of(before, file).into_iter().for_each(|pack| cost[pack] = cost[pack].saturating_add(content));
        }
        let whole = |pack: usize| before.packs[pack].frames.iter().map(|frame| u64::from(frame.length)).sum::<u64>().max(1);
        let small: HashSet<usize> = (0..live.len()).filter(|pack| live[*pack] < SMALL_PACK).collect();
        let has_many = small.len() > MOST_SMALL;
        let is_poor = |pack: &usize| live[*pack] * 10 < whole(*pack) * 4 || (has_many && small.contains(pack));
        let mut poor: Vec<usize> = (0..live.len()).filter(|pack| self.is_usable[*pack]).filter(is_poor).collect();
        poor.sort_by_key(|pack| (live[*pack] * 1000 / whole(*pack), *pack));
        let (mut repacked, mut asked) = (0u64, 0u64);
        for pack in poor {
            (repacked, asked) = (repacked + live[pack], asked.saturating_add(cost[pack]));
            if repacked > MOST_REPACKED || asked > MOST_ASKED {
                break;
            }
            self.is_usable[pack] = false;
        }
    }
}

/// Returns the packs that a file's content is in.
fn packs_of(list: &FileList, file: &SavedFile) -> BTreeSet<usize> {
    let chunks = list.parts_of(file).iter().filter_map(|part| list.chunk(part.chunk));
    chunks.filter_map(|chunk| usize::try_from(chunk.pack).ok()).collect()
}
