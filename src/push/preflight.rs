//! Checks every target before a build: whether it accepts pushes, and whether its tags already exist.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::domain::{Descriptor, ImageRef, Repository};
use crate::error::{Error, Result};
use crate::registry::{self, PushAccess, Registries};
use crate::settings::{IfTagExists, PushSettings};

/// The result of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The targets to push, in their order. `--if-tag-exists skip` leaves out targets whose tag exists: if no target is left, there
    /// is nothing to build.
    pub push: Vec<ImageRef>,
    /// Skipped targets, with the manifest that their tag points to.
    pub skipped: Vec<(ImageRef, Descriptor)>,
    /// Repositories that hakobi created.
    pub created: Vec<Repository>,
}

/// Tries the credentials of every target, creates missing repositories if requested, and looks up the tags.
///
/// # Errors
/// If a target does not accept pushes, or has a tag that may not be moved. The error names all of these.
pub async fn preflight(registries: &Registries, targets: &[ImageRef], settings: &PushSettings) -> Result<Preflight> {
    let mut repositories: Vec<&Repository> = Vec::new();
    for target in targets {
        if !repositories.contains(&&target.repository) {
            repositories.push(&target.repository);
        }
    }
    let asked = repositories.iter().map(|repository| {
        let client = registries.repository(repository);
        async move { client.push_access(settings.create_repository.as_ref()).await }
    });
    let mut access: BTreeMap<&Repository, PushAccess> = BTreeMap::new();
    let mut failures = Vec::new();
    for (repository, answer) in repositories.iter().zip(join_all(asked).await) {
        match answer {
            Ok(answer) => _ = access.insert(repository, answer),
            Err(error) => failures.push(error),
        }
    }
    if let Some(error) = several(failures) {
        return Err(error);
    }
    let created = access.iter().filter(|(_, access)| access.created).map(|(repository, _)| (*repository).clone()).collect();
    let found = tags_there(registries, targets, settings, &access).await?;
    judge(targets, found, settings.if_tag_exists, created)
}

/// Looks up what each target's tag points to now, if that matters.
///
/// # Errors
/// If a registry does not answer.
async fn tags_there(
    registries: &Registries,
    targets: &[ImageRef],
    settings: &PushSettings,
    access: &BTreeMap<&Repository, PushAccess>,
) -> Result<Vec<Option<Found>>> {
    let asked = targets.iter().map(|target| async move {
        let access = access.get(&target.repository);
        let immutable = access.is_some_and(|access| access.immutable_tags);
        let matters = immutable || settings.if_tag_exists != IfTagExists::Overwrite;
        let (true, false, Some(tag)) = (matters, access.is_some_and(|access| access.created), &target.tag) else {
            return Ok(None);
        };
        let there = registries.repository(&target.repository).head_manifest(tag).await?;
        Ok(there.map(|manifest| Found { manifest, immutable }))
    });
    join_all(asked).await.into_iter().collect::<registry::Result<_>>().map_err(Error::from)
}

struct Found {
    manifest: Descriptor,
    immutable: bool,
}

fn judge(targets: &[ImageRef], found: Vec<Option<Found>>, if_exists: IfTagExists, created: Vec<Repository>) -> Result<Preflight> {
    let mut out = Preflight { created, ..Preflight::default() };
    let mut refused = Vec::new();
    let mut only_immutable = true;
    for (target, found) in targets.iter().zip(found) {
        match (found, if_exists) {
            (None, _) => out.push.push(target.clone()),
            (Some(found), IfTagExists::Skip) => out.skipped.push((target.clone(), found.manifest)),
            (Some(found), _) => {
                only_immutable &= found.immutable && if_exists == IfTagExists::Overwrite;
                let why = if found.immutable { ", in a repository whose tags are immutable" } else { "" };
                refused.push(format!("{target} ({}{why})", found.manifest.digest));
            }
        }
    }
    if refused.is_empty() {
        return Ok(out);
    }
    let words = if refused.len() == 1 { "the tag already exists" } else { "the tags already exist" };
    let hint = if only_immutable {
        "push another tag, pass `--if-tag-exists skip`, or make the repository's tags mutable"
    } else {
        "push another tag, or pass `--if-tag-exists skip` or `--if-tag-exists overwrite`"
    };
    Err(Error::push(format!("{words}: {}", refused.join(", "))).hint(hint))
}

/// Combines the failures of several registries into one error, with the first one's hint. Returns `None` without failures.
pub(super) fn several(failures: Vec<registry::Error>) -> Option<Error> {
    let mut failures = failures.into_iter();
    let first = failures.next()?;
    let rest: Vec<String> = failures.map(|error| error.to_string()).collect();
    if rest.is_empty() {
        return Some(first.into());
    }
    Some(Error::push(format!("{first}; {}", rest.join("; "))).hint_if(first.hint()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, media_type};

    fn target(text: &str) -> ImageRef {
        text.parse().expect("a reference")
    }

    fn found(immutable: bool) -> Option<Found> {
        Some(Found { manifest: Descriptor::new(media_type::OCI_MANIFEST, Digest::hash(b"x"), 1), immutable })
    }

    #[test]
    fn tags_that_are_there_fail_skip_or_are_moved() {
        let targets = [target("r.example/a:1"), target("r.example/a:2")];
        let judge = |found, if_exists| judge(&targets, found, if_exists, Vec::new());
        let skipped = judge(vec![found(false), None], IfTagExists::Skip).expect("judged");
        assert_eq!(skipped.push, [targets[1].clone()]);
        assert_eq!(skipped.skipped.len(), 1);
        let error = judge(vec![found(false), found(false)], IfTagExists::Fail).expect_err("refused").to_string();
        assert!(error.contains("r.example/a:1") && error.contains("r.example/a:2"), "{error}");
        let error = judge(vec![None, found(true)], IfTagExists::Overwrite).expect_err("refused");
        assert!(error.to_string().contains("immutable") && error.hint_text().is_some_and(|hint| !hint.contains("overwrite")));
    }
}
