//! The builds of a store: the lists of records that they used.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cache::keys::inputs_key;
use crate::cache::uses::read_uses;
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
    /// The lists.
    pub lists: Vec<Name>,
    /// The records that it used, and the pointer of its image.
    pub objects: BTreeSet<Name>,
    /// Whether it looked at all steps. A build of an unchanged image reads few records, and the next change needs all of them.
    pub is_whole: bool,
}

/// Returns the builds of a store. What a scope has without any list, of an older hakobi, counts as one build.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn builds(blobs: &Blobs, entries: &[Entry]) -> Result<Vec<Build>> {
    let mut by_build: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some(build) = entry.name.used_by() {
            by_build.entry(build).or_default().push(entry);
        }
    }
    let read = by_build.into_iter().map(|((owner, _), lists)| async move {
        // All have the same records.
        let Some(first) = lists.first() else { return Ok(None) };
        let Some(records) = read_uses(blobs, &first.name).await? else { return Ok(None) };
        Ok(Some(of_lists(owner, &lists, records)))
    });
    let read: Vec<Option<Build>> = stream::iter(read).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut builds: Vec<Build> = read.into_iter().flatten().collect();
    let with_lists: BTreeSet<&str> =
        entries.iter().filter(|entry| entry.name.used_by().is_some()).filter_map(|entry| entry.name.scope_part()).collect();
    // `hakobi save` and `import` write an image and no list.
    let owners: BTreeSet<&str> = entries.iter().filter_map(|entry| Some(entry.name.used_by()?.0)).collect();
    let alone = entries.iter().filter(|entry| entry.name.scope_part().is_some_and(|scope| with_lists.contains(scope)));
    builds.extend(alone.filter_map(|entry| {
        let owner = entry.name.pointer_of().filter(|owner| !owners.contains(owner))?;
        Some(Build { last: entry.written, is_whole: true, ..of_lists(owner, &[], BTreeSet::new()) })
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
        lists: Vec::new(),
        objects: entries.into_iter().map(|entry| entry.name.clone()).collect(),
        is_whole: true,
    }));
    builds.sort_by(|one, other| (other.last, &other.scope, &other.image).cmp(&(one.last, &one.scope, &one.image)));
    Ok(builds)
}

fn of_lists(owner: &str, lists: &[&Entry], mut objects: BTreeSet<Name>) -> Build {
    let (scope, image) = owner.split_once('/').unwrap_or((owner, ""));
    let (scope, image) = (Name::decoded(scope), Name::decoded(image));
    let inputs = image.rsplit_once(':').map(|(name, tag)| Name::record(&scope, inputs_key(name, tag).digest()));
    let is_whole = inputs.is_some_and(|inputs| objects.contains(&inputs));
    objects.extend(format!("refs/{owner}").parse::<Name>().ok());
    let last = lists.iter().map(|entry| entry.written).max().unwrap_or_default();
    Build { scope, image, last, lists: lists.iter().map(|entry| entry.name.clone()).collect(), objects, is_whole }
}
