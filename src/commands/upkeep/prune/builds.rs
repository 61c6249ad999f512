//! The builds of a store: the lists of records that they used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cache::uses::{DAY, UsesList, read_uses};
use crate::store::{Blobs, Entry, Name, Result};

/// How many lists are read at once.
const AT_ONCE: usize = 32;

/// A build, and the same build on other days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    pub scope: String,
    /// The image with its tag. Empty for all that a scope has without a list.
    pub image: String,
    /// When it was last used, in seconds of the Unix epoch.
    pub last: u64,
    /// When its latest list was written: which of two builds of a day is the later one.
    pub written: u64,
    /// The lists.
    pub lists: Vec<Name>,
    /// The records that it used, and the pointer of its image.
    pub objects: BTreeSet<Name>,
    /// Whether it looked at all steps. A build of an unchanged image reads few records, and the next change needs all of them.
    pub is_whole: bool,
}

/// The builds of a store.
#[derive(Debug, Default)]
pub(super) struct Builds {
    /// The latest ones first.
    pub all: Vec<Build>,
    /// The scopes, as they stand in names, with a list that cannot be read and may be needed. What they have stays.
    pub unclear: BTreeSet<String>,
    /// Damaged lists that are old enough to go.
    pub damaged: Vec<Name>,
}

/// What the lists of a build turn out to be.
enum ReadLists {
    Build(Build),
    Unclear(String),
    Damaged(Vec<Name>),
}

/// Returns the builds of a store. What a scope has without any list, of an older hakobi, counts as one build. A damaged list that was
/// written before `since` counts as none.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn builds(blobs: &Blobs, entries: &[Entry], since: u64, now: u64) -> Result<Builds> {
    let mut by_build: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some(build) = entry.name.used_by() {
            by_build.entry(build).or_default().push(entry);
        }
    }
    let read = by_build.into_iter().map(|((owner, _), lists)| async move {
        let (mut damaged, mut is_unclear) = (Vec::new(), false);
        for list in &lists {
            match read_uses(blobs, &list.name).await? {
                // All have the same records.
                UsesList::Right(uses) => {
                    let build = Build { is_whole: uses.is_whole, ..of_lists(owner, &lists, uses.names(), now) };
                    return Ok(ReadLists::Build(build));
                }
                UsesList::Damaged if list.written < since => damaged.push(list.name.clone()),
                UsesList::Damaged | UsesList::Foreign => is_unclear = true,
                UsesList::Gone => {}
            }
        }
        let scope = owner.split_once('/').map_or(owner, |(scope, _)| scope);
        Ok(if is_unclear { ReadLists::Unclear(scope.to_owned()) } else { ReadLists::Damaged(damaged) })
    });
    let read: Vec<ReadLists> = stream::iter(read).buffer_unordered(AT_ONCE).try_collect().await?;
    let (mut builds, mut unclear, mut damaged) = (Vec::new(), BTreeSet::new(), Vec::new());
    for build in read {
        match build {
            ReadLists::Build(build) => builds.push(build),
            ReadLists::Unclear(scope) => drop(unclear.insert(scope)),
            ReadLists::Damaged(names) => damaged.extend(names),
        }
    }
    let with_lists: BTreeSet<&str> =
        entries.iter().filter(|entry| entry.name.used_by().is_some()).filter_map(|entry| entry.name.scope_part()).collect();
    // `hakobi save` and `import` write an image and no list.
    let owners: BTreeSet<&str> = entries.iter().filter_map(|entry| Some(entry.name.used_by()?.0)).collect();
    let alone = entries.iter().filter(|entry| entry.name.scope_part().is_some_and(|scope| with_lists.contains(scope)));
    builds.extend(alone.filter_map(|entry| {
        let owner = entry.name.pointer_of().filter(|owner| !owners.contains(owner))?;
        Some(Build { last: entry.written, written: entry.written, is_whole: true, ..of_lists(owner, &[], BTreeSet::new(), now) })
    }));
    let mut without: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.name.used_by().is_none()) {
        if let Some(scope) = entry.name.scope_part().filter(|scope| !with_lists.contains(scope)) {
            without.entry(scope).or_default().push(entry);
        }
    }
    builds.extend(without.into_iter().map(|(scope, entries)| Build {
        scope: Name::decoded(scope),
        image: String::new(),
        last: entries.iter().map(|entry| entry.written).max().unwrap_or_default(),
        written: entries.iter().map(|entry| entry.written).max().unwrap_or_default(),
        lists: Vec::new(),
        objects: entries.into_iter().map(|entry| entry.name.clone()).collect(),
        is_whole: true,
    }));
    builds.sort_by_key(|build| Reverse((build.last, build.written, build.scope.clone(), build.image.clone())));
    Ok(Builds { all: builds, unclear, damaged })
}

fn of_lists(owner: &str, lists: &[&Entry], mut objects: BTreeSet<Name>, now: u64) -> Build {
    let (scope, image) = owner.split_once('/').unwrap_or((owner, ""));
    objects.extend(format!("refs/{owner}").parse::<Name>().ok());
    // A list is written at the first use of a day, and there may have been later ones.
    let end = |day: u64| day.saturating_add(1).saturating_mul(DAY) - 1;
    let used = |entry: &&Entry| entry.name.used_on().map_or(entry.written, |day| entry.written.max(end(day))).min(now);
    let last = lists.iter().map(used).max().unwrap_or_default();
    let written = lists.iter().map(|entry| entry.written).max().unwrap_or_default();
    let lists = lists.iter().map(|entry| entry.name.clone()).collect();
    Build { scope: Name::decoded(scope), image: Name::decoded(image), last, written, lists, objects, is_whole: false }
}
