//! Decides which builds stay.

use std::collections::{BTreeMap, BTreeSet};

use super::builds::Build;
use super::reach::Reach;
use crate::domain::{Digest, matches_wildcard};
use crate::settings::PruneSettings;
use crate::store::{Name, Result};

/// The builds that stay and those that go, with the reasons.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub kept: Vec<Build>,
    pub dropped: Vec<(Build, String)>,
    pub room: Room,
}

/// What the builds that stay take of the size of the cache.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The blobs that they need, and their size in bytes.
    used: BTreeSet<Digest>,
    bytes: u64,
    /// Whether a build goes because the cache would be too large.
    is_full: bool,
}

impl Room {
    /// Returns which of these records that no list names go, because the cache would be too large. The latest ones come first.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn crowded_out(&mut self, unlisted: Vec<Name>, most: u64, reach: &mut Reach<'_>) -> Result<BTreeSet<Name>> {
        let mut out = BTreeSet::new();
        for name in unlisted {
            let object = BTreeSet::from([name.clone()]);
            if !self.is_full {
                let more = reach.more(&object, &self.used).await?;
                self.is_full = self.bytes + more > most;
            }
            if self.is_full {
                out.insert(name);
            } else {
                self.bytes += reach.add(&object, &mut self.used).await?;
            }
        }
        Ok(out)
    }
}

/// Decides which of these builds stay. They come in the order of their last use, the latest first. A build that used all of `own` stays.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn choose(
    builds: Vec<Build>,
    settings: &PruneSettings,
    own: &BTreeSet<Name>,
    now: u64,
    reach: &mut Reach<'_>,
) -> Result<Choice> {
    let mut choice = Choice::default();
    // How many builds of each image stay, and whether one of them is whole.
    let mut of_image: BTreeMap<(String, String), (usize, bool)> = BTreeMap::new();
    // What is in other scopes stays, and counts first.
    let (chosen, others): (Vec<Build>, Vec<Build>) = builds.into_iter().partition(|build| {
        let is_own = !own.is_empty() && own.is_subset(&build.objects);
        is_chosen(&build.scope, settings) && !is_own
    });
    for build in others {
        choice.room.bytes += reach.add(&build.objects, &mut choice.room.used).await?;
        choice.kept.push(build);
    }
    for build in chosen {
        let (count, has_whole) = of_image.entry((build.scope.clone(), build.image.clone())).or_default();
        let is_late = settings.keep.is_none_or(|keep| build.last >= now.saturating_sub(keep.as_secs()));
        let is_among = settings.keep_builds.is_none_or(|most| *count < most);
        // The next change of an image that is still built needs the records of a whole build.
        let is_needed = build.is_whole && !*has_whole && *count > 0;
        if !(is_needed || is_late && is_among) {
            let why = if is_late { "there are enough newer ones" } else { "it was not used for longer" };
            choice.dropped.push((build, why.to_owned()));
            continue;
        }
        let more = reach.more(&build.objects, &choice.room.used).await?;
        choice.room.is_full |= settings.max_size.is_some_and(|most| choice.room.bytes + more > most);
        // An older build may still stay if it needs nothing more.
        if choice.room.is_full && more > 0 {
            choice.dropped.push((build, "the cache would be too large".to_owned()));
            continue;
        }
        (*count, *has_whole) = (*count + 1, *has_whole || build.is_whole);
        choice.room.bytes += reach.add(&build.objects, &mut choice.room.used).await?;
        choice.kept.push(build);
    }
    Ok(choice)
}

/// Returns whether a scope may lose something.
pub(super) fn is_chosen(scope: &str, settings: &PruneSettings) -> bool {
    settings.scopes.is_empty() || settings.scopes.iter().any(|pattern| matches_wildcard(pattern, scope))
}
