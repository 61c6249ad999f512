//! `hakobi cache prune`: removes what no build used of late.
//!
//! `builds` reads which builds there were and what they used, `choose` decides which of them stay, `reach` finds the blobs that these
//! need, and `marks` remembers since when a blob is not needed. Records and lists go at once. A blob goes after a grace period, because
//! a running build may have found it, and has not said so yet. What a build loses by a race is a miss, and never breaks it.

mod builds;
mod choose;
mod marks;
mod reach;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::{Digest, seconds_now};
use crate::event::Events;
use crate::settings::PruneSettings;
use crate::store::{Blobs, Entry, Error, Fault, Name, Result};

use builds::{Build, builds};
use choose::{Choice, choose};
use marks::Marks;
use reach::{Reach, blobs_of};

/// What a run of `prune` finds, and then does.
#[derive(Debug)]
struct PrunePlan {
    /// All builds of the chosen scopes, with the reason for each that goes.
    builds: Vec<(Build, Option<String>)>,
    /// Lists, records and pointers to remove.
    objects: Vec<Name>,
    /// How many of these are records.
    records: usize,
    /// Blobs to remove now, with their sizes in bytes.
    blobs: BTreeMap<Digest, u64>,
    /// Blobs that nothing needs, and that stay until the grace period is over.
    marked: BTreeMap<Digest, u64>,
    marks: Marks,
    /// The size of the blobs that stay because something needs them, in bytes.
    needed: u64,
}

/// Removes what the settings say. Returns the text for standard output.
///
/// # Errors
/// If the store fails, or cannot be pruned.
pub async fn prune(blobs: &Blobs, settings: &PruneSettings, events: &Events) -> Result<String> {
    if blobs.store().repository().is_some() {
        return Err(Error::new(Fault::Other, "hakobi does not prune a cache in a registry").hint(
            "builds drop old records there by themselves; for old scopes use a lifecycle rule of the registry: docs/costs.md",
        ));
    }
    let step = events.step("[hakobi] looking for what no build used");
    let planned = plan(blobs, settings, seconds_now()).await;
    let mut plan = planned.inspect_err(|error| step.failed(error))?;
    step.done();
    let leftovers = if settings.dry_run { 0 } else { execute(blobs, &mut plan, settings).await? };
    Ok(words::text(&plan, leftovers, settings))
}

/// How long a blob that nothing needs stays in a directory that is pruned at the end of a run. The next run may bring many of them along, and
/// a run that is under way elsewhere has named its blobs by then, or misses them.
const SHORT_GRACE: Duration = Duration::from_hours(1);

/// Prunes a cache that is larger than this, in bytes. Returns what it did, or `None` if that was not necessary.
///
/// # Errors
/// If the store fails.
pub async fn prune_to(blobs: &Blobs, most: u64) -> Result<Option<String>> {
    let size: u64 = blobs.store().list("").await?.iter().map(|entry| entry.size).sum();
    if size <= most {
        return Ok(None);
    }
    let settings =
        PruneSettings { max_size: Some(most), keeps_latest: true, grace: SHORT_GRACE, marks: false, ..PruneSettings::default() };
    let mut plan = plan(blobs, &settings, seconds_now()).await?;
    execute(blobs, &mut plan, &settings).await?;
    let builds = plan.builds.iter().filter(|(_, why)| why.is_some()).count();
    if builds == 0 && plan.blobs.is_empty() {
        return Ok(None);
    }
    let gone = words::megabytes(plan.blobs.values().sum());
    Ok(Some(format!("pruned the cache, which was above {}: {builds} builds and {gone} removed", words::megabytes(most))))
}

/// Finds what to remove. Changes nothing.
async fn plan(blobs: &Blobs, settings: &PruneSettings, now: u64) -> Result<PrunePlan> {
    let entries = blobs.store().list("").await?;
    let all = builds(blobs, &entries).await?;
    let since = now.saturating_sub(settings.grace.as_secs());
    let sizes: BTreeMap<Digest, u64> = entries.iter().filter_map(|entry| Some((entry.name.digest()?, entry.size))).collect();
    let mut reach = Reach::new(blobs, &sizes);
    let Choice { kept, dropped } = choose(all, settings, now, &mut reach).await?;
    // A record that no list names may be of a build that still runs, and will name it.
    let listed: BTreeSet<&Name> =
        kept.iter().chain(dropped.iter().map(|(build, _)| build)).flat_map(|build| &build.objects).collect();
    let needed: BTreeSet<&Name> = kept.iter().flat_map(|build| &build.objects).collect();
    let stays = |entry: &Entry| needed.contains(&entry.name) || !listed.contains(&entry.name) && entry.written >= since;
    let (stay, go): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().filter(|entry| is_root(&entry.name)).partition(|entry| stays(entry));
    let mut used = BTreeSet::new();
    for entry in stay {
        used.extend(reach.of(&entry.name).await?);
    }
    let mut marks = Marks::read(blobs).await?;
    let unused =
        entries.iter().filter_map(|entry| Some((entry.name.digest()?, entry))).filter(|(digest, _)| !used.contains(digest));
    let (mut now_gone, mut marked) = (BTreeMap::new(), BTreeMap::new());
    for (digest, entry) in unused {
        let seen = marks.since(&digest, now);
        let is_old = entry.written < since || settings.grace.is_zero();
        if is_old && (seen <= since || !settings.marks) {
            now_gone.insert(digest, entry.size)
        } else {
            marked.insert(digest, entry.size)
        };
    }
    marks.retain(|digest| marked.contains_key(digest));
    let lists = dropped.iter().flat_map(|(build, _)| build.lists.iter().cloned());
    let records = go.iter().filter(|entry| entry.name.as_str().starts_with("steps/")).count();
    let objects = lists.chain(go.into_iter().map(|entry| entry.name.clone())).collect();
    let needed = used.iter().filter_map(|digest| sizes.get(digest)).sum();
    let mut builds: Vec<(Build, Option<String>)> = kept.into_iter().map(|build| (build, None)).collect();
    builds.extend(dropped.into_iter().map(|(build, why)| (build, Some(why))));
    Ok(PrunePlan { builds, objects, records, blobs: now_gone, marked, marks, needed })
}

/// Removes what the plan says. Returns how many broken-off writes were removed too.
async fn execute(blobs: &Blobs, plan: &mut PrunePlan, settings: &PruneSettings) -> Result<u64> {
    let store = blobs.store();
    // No reader finds a list whose records are gone, or a record whose blobs are gone.
    store.delete_all(&plan.objects).await?;
    // Builds went on meanwhile.
    let again = store.list("steps/").await?.into_iter().chain(store.list("refs/").await?);
    let gone: BTreeSet<&Name> = plan.objects.iter().collect();
    let began = seconds_now().saturating_sub(settings.grace.as_secs().max(60));
    for entry in again.filter(|entry| entry.written >= began && !gone.contains(&entry.name)) {
        for digest in blobs_of(blobs, &entry.name).await? {
            plan.blobs.remove(&digest);
        }
    }
    let names: Vec<Name> = plan.blobs.keys().flat_map(|digest| [Name::blob(digest), Name::sums(digest)]).collect();
    store.delete_all(&names).await?;
    if settings.marks {
        plan.marks.write(blobs).await?;
    }
    store.delete_leftovers(seconds_now().saturating_sub(settings.grace.as_secs())).await
}

/// Returns whether an object names blobs.
fn is_root(name: &Name) -> bool {
    ["steps/", "refs/"].iter().any(|kind| name.as_str().starts_with(kind))
}
