//! `hakobi cache prune`: removes what no build used of late.
//!
//! `builds` reads which builds there were and what they used, `choose` decides which of them stay, `reach` finds the blobs that these
//! need, and `marks` remembers since when a blob is not needed. Records and lists go at once. A blob goes after a grace period, because
//! a running build may have found it, and has not said so yet. What a build loses by a race is a miss.

mod builds;
mod choose;
mod marks;
mod reach;
mod words;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::{Digest, seconds_now};
use crate::event::Events;
use crate::settings::PruneSettings;
use crate::store::{Blobs, Entry, Error, Fault, Name, Result};

use builds::{Build, Builds, builds};
use choose::{Choice, choose, is_chosen};
use marks::Marks;
use reach::Reach;

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
    /// When the objects that name blobs were written.
    roots: BTreeMap<Name, u64>,
    /// The names of all objects.
    names: BTreeSet<Name>,
    /// The size of the blobs that stay because something needs them, in bytes.
    needed: u64,
    /// The scopes that lose nothing, because the list of a build there cannot be read.
    unclear: Vec<String>,
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
    let planned = async { plan(blobs, blobs.store().list("").await?, settings, &BTreeSet::new(), seconds_now()).await };
    let mut plan = planned.await.inspect_err(|error| step.failed(error))?;
    step.done();
    if settings.dry_run {
        return Ok(words::text(&plan, 0, settings));
    }
    execute(blobs, &mut plan, settings).await?;
    let before = seconds_now().saturating_sub(settings.grace.max(LONGEST_UPLOAD).as_secs());
    let leftovers = blobs.store().delete_leftovers(before).await.unwrap_or_else(|error| {
        events.warning(format!("failed to remove writes that were broken off: {error}"));
        0
    });
    Ok(words::text(&plan, leftovers, settings))
}

/// How long a blob that nothing needs stays in a directory that is pruned at the end of a run. A run that is under way elsewhere has named
/// its blobs by then, or misses them.
const SHORT_GRACE: Duration = Duration::from_hours(12);

/// How long a record stays that no list names, unless `--keep` says otherwise: of a build that failed, or of an older hakobi.
const UNLISTED: Duration = Duration::from_hours(30 * 24);

/// How long an upload may take.
const LONGEST_UPLOAD: Duration = Duration::from_hours(24);

/// Prunes a cache that is larger than this, in bytes, to somewhat less. What this run used stays. Returns what it did, or `None` if that was
/// not necessary.
///
/// # Errors
/// If the store fails.
pub async fn prune_to(blobs: &Blobs, most: u64) -> Result<Option<String>> {
    let entries = blobs.store().list("").await?;
    if entries.iter().map(|entry| entry.size).sum::<u64>() <= most {
        return Ok(None);
    }
    let settings = PruneSettings { max_size: Some(most / 10 * 9), grace: SHORT_GRACE, marks: false, ..PruneSettings::default() };
    let mut plan = plan(blobs, entries, &settings, &blobs.used().0, seconds_now()).await?;
    execute(blobs, &mut plan, &settings).await?;
    blobs.store().delete_leftovers(seconds_now().saturating_sub(LONGEST_UPLOAD.as_secs())).await?;
    let builds = plan.builds.iter().filter(|(_, why)| why.is_some()).count();
    if builds == 0 && plan.blobs.is_empty() {
        return Ok(None);
    }
    let gone = words::megabytes(plan.blobs.values().sum());
    Ok(Some(format!("pruned the cache, which was above {}: {builds} builds and {gone} removed", words::megabytes(most))))
}

/// Finds what to remove of these objects, which are all of the store. A build that used all of `own` stays. Changes nothing.
async fn plan(blobs: &Blobs, entries: Vec<Entry>, settings: &PruneSettings, own: &BTreeSet<Name>, now: u64) -> Result<PrunePlan> {
    let since = if settings.grace.is_zero() { u64::MAX } else { now.saturating_sub(settings.grace.as_secs()) };
    let Builds { all, unclear, damaged } = builds(blobs, &entries, since, now).await?;
    let sizes: BTreeMap<Digest, u64> = entries.iter().filter_map(|entry| Some((entry.name.digest()?, entry.size))).collect();
    let mut reach = Reach::new(blobs, &sizes);
    let Choice { kept, dropped, mut room } = choose(all, settings, own, now, &mut reach).await?;
    let listed: BTreeSet<&Name> =
        kept.iter().chain(dropped.iter().map(|(build, _)| build)).flat_map(|build| &build.objects).collect();
    let needed: BTreeSet<&Name> = kept.iter().flat_map(|build| &build.objects).collect();
    // A record that no list names may be of a build that still runs, and will name it.
    let unlisted = now.saturating_sub(settings.grace.max(settings.keep.unwrap_or(UNLISTED)).as_secs());
    let may_go = |name: &Name| {
        let scope = name.scope_part().unwrap_or_default();
        is_chosen(&Name::decoded(scope), settings) && !unclear.contains(scope) && !needed.contains(name) && !own.contains(name)
    };
    let is_new = |entry: &Entry| !listed.contains(&entry.name) && entry.written >= unlisted;
    let roots: Vec<&Entry> = entries.iter().filter(|entry| is_root(&entry.name)).collect();
    // The others are of builds that failed, or whose list was lost.
    let mut others: Vec<&Entry> = roots.iter().copied().filter(|entry| may_go(&entry.name) && is_new(entry)).collect();
    others.retain(|entry| entry.written < since);
    others.sort_by_key(|entry| Reverse(entry.written));
    let others = others.into_iter().map(|entry| entry.name.clone()).collect();
    let crowded_out = match settings.max_size {
        Some(most) => room.crowded_out(others, most, &mut reach).await?,
        None => BTreeSet::new(),
    };
    let stays = |entry: &Entry| !may_go(&entry.name) || is_new(entry) && !crowded_out.contains(&entry.name);
    let (stay, go): (Vec<&Entry>, Vec<&Entry>) = roots.iter().partition(|entry| stays(entry));
    let stay: BTreeSet<Name> = stay.into_iter().map(|entry| entry.name.clone()).collect();
    let mut used = BTreeSet::new();
    let needed = reach.add(&stay, &mut used).await?;
    let mut marks = Marks::read(blobs).await?;
    let (mut now_gone, mut marked) = (BTreeMap::new(), BTreeMap::new());
    for entry in &entries {
        let Some(digest) = entry.name.digest().filter(|digest| !used.contains(digest)) else { continue };
        let seen = marks.since(&digest, now);
        let goes = entry.written < since && (seen <= since || !settings.marks);
        if goes { &mut now_gone } else { &mut marked }.insert(digest, entry.size);
    }
    marks.retain(|digest| marked.contains_key(digest));
    let lists = dropped.iter().flat_map(|(build, _)| build.lists.iter().cloned());
    let records = go.iter().filter(|entry| entry.name.as_str().starts_with("steps/")).count();
    let objects = lists.chain(damaged).chain(go.into_iter().map(|entry| entry.name.clone())).collect();
    let roots = roots.into_iter().map(|entry| (entry.name.clone(), entry.written)).collect();
    let names = entries.iter().map(|entry| entry.name.clone()).collect();
    let unclear = unclear.iter().map(|scope| Name::decoded(scope)).filter(|scope| is_chosen(scope, settings)).collect();
    let mut builds: Vec<(Build, Option<String>)> = kept.into_iter().map(|build| (build, None)).collect();
    builds.extend(dropped.into_iter().map(|(build, why)| (build, Some(why))));
    Ok(PrunePlan { builds, objects, records, blobs: now_gone, marked, marks, roots, names, needed, unclear })
}

/// Removes what the plan says.
async fn execute(blobs: &Blobs, plan: &mut PrunePlan, settings: &PruneSettings) -> Result<()> {
    let store = blobs.store();
    // No reader finds a list whose records are gone, or a record whose blobs are gone.
    store.delete_all(&plan.objects).await?;
    // Builds went on meanwhile.
    let again = store.list("steps/").await?.into_iter().chain(store.list("refs/").await?);
    let removed: BTreeSet<&Name> = plan.objects.iter().collect();
    let is_new = |entry: &Entry| removed.contains(&entry.name) || plan.roots.get(&entry.name) != Some(&entry.written);
    let new: BTreeSet<Name> = again.filter(is_new).map(|entry| entry.name).collect();
    let mut used = BTreeSet::new();
    Reach::new(blobs, &plan.blobs).add(&new, &mut used).await?;
    plan.blobs.retain(|digest, _| !used.contains(digest));
    let names = plan.blobs.keys().flat_map(|digest| [Name::blob(digest), Name::sums(digest)]);
    let names: Vec<Name> = names.filter(|name| plan.names.contains(name)).collect();
    store.delete_all(&names).await?;
    if settings.marks { plan.marks.write(blobs).await } else { Ok(()) }
}

/// Returns whether an object names blobs.
fn is_root(name: &Name) -> bool {
    ["steps/", "refs/"].iter().any(|kind| name.as_str().starts_with(kind))
}
