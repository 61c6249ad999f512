//! Finds needless changes since the last build: variables above commands that do not use them, base images whose tag moves, and
//! files that do not belong in an image.

use std::collections::BTreeMap;

use super::order::copies_everything;
use super::{Advice, Build, Step, lasted, listed, named};

/// Finds variables for a commit, a version or a time that commands see but do not name.
pub(super) fn variables(build: &Build<'_>) -> Vec<Advice> {
    let mut seen: BTreeMap<(String, &str), Vec<usize>> = BTreeMap::new();
    for (place, step) in build.steps.iter().enumerate() {
        let (Some(command), Some(before), true) = (step.command(), step.before, step.runs) else { continue };
        for (name, value) in &step.now.env {
            let changed = before.env.get(name).is_some_and(|other| other != value);
            if changed && stands_for_a_build(name) && !has_word(&command, name) {
                seen.entry((step.now.stage.clone(), name)).or_default().push(place);
            }
        }
    }
    let advice = seen.into_iter().filter_map(|((_, name), places)| {
        let first = &build.steps[*places.first()?];
        let (file, run_line) = build.place(first.op);
        // A base image's own variables change with it, and the user cannot move them.
        let line = declared(build, &file, name, run_line)?;
        let (was, is) = (first.before?.env.get(name)?, first.now.env.get(name)?);
        let took = places.iter().filter_map(|place| build.steps[*place].now.seconds);
        let seconds = took.fold(None, |all: Option<f64>, one| Some(all.unwrap_or(0.0) + one));
        let more = match places.len() - 1 {
            0 => String::new(),
            1 => " and one more step".to_owned(),
            more => format!(" and {more} more steps"),
        };
        let took = seconds.map(|seconds| format!(" ({})", lasted(seconds))).unwrap_or_default();
        let text = format!(
            "{name} changed from {} to {}, so {} (line {run_line}){more} ran again{took} without using it: declare it \
             directly above the first step that uses it",
            shortened(was),
            shortened(is),
            named(first.now)
        );
        Some(Advice { file, line, seconds, text })
    });
    advice.collect()
}

/// Finds base images whose tag points to another image than in the last build.
pub(super) fn bases(build: &Build<'_>) -> Vec<Advice> {
    let mut moved: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, step) in build.steps.iter().enumerate() {
        for (image, digest) in &step.now.images {
            let other = step.before.and_then(|before| before.images.get(image));
            if other.is_some_and(|other| other != digest && !other.is_empty() && !digest.is_empty()) {
                moved.entry(image).or_default().push(place);
            }
        }
    }
    let advice = moved.into_iter().filter_map(|(image, places)| {
        let first = &build.steps[*places.first()?];
        let inputs = first.op.inputs.iter().filter_map(|input| build.graph.op(&input.step));
        let source = inputs.into_iter().find(|op| op.image().is_some_and(|name| name.split('@').next() == Some(image)))?;
        let (file, line) = build.place(source);
        // A tag cannot have moved if the line names a digest; a variable hides the tag.
        let text = text_of(build, &file, line).filter(|text| !text.contains("@sha256:") && !text.contains('$'))?;
        let short = image.trim_start_matches("docker.io/library/").trim_start_matches("docker.io/");
        let named = if text.contains(short) { short } else { image };
        let seconds = build.seconds_behind(&places);
        let took = seconds.map(|seconds| format!(" ({})", lasted(seconds))).unwrap_or_default();
        let (was, is) = (first.before?.images.get(image)?, first.now.images.get(image)?);
        let text = format!(
            "{named} moved from {} to {} since the last build, so all steps on it run again{took}: pin it with `{named}@{is}`, or use a \
             registry of your own in which you decide when it moves",
            start(was),
            start(is)
        );
        Some(Advice { file, line, seconds, text })
    });
    advice.collect()
}

/// Finds copies of everything that ran only because of files that do not belong in an image.
pub(super) fn files(build: &Build<'_>) -> Vec<Advice> {
    build.steps.iter().enumerate().filter_map(|(place, step)| of_copy(build, place, step)).collect()
}

fn of_copy(build: &Build<'_>, place: usize, step: &Step<'_>) -> Option<Advice> {
    let before = step.before.filter(|_| step.runs && copies_everything(build, step))?;
    let now = &step.now.files;
    let changed = now.iter().filter(|(path, content)| before.files.get(*path) != Some(content)).map(|(path, _)| path);
    let gone = before.files.keys().filter(|path| !now.contains_key(*path));
    let changed: Vec<&String> = changed.chain(gone).collect();
    let same = before.env == step.now.env && before.operation == step.now.operation && before.images == step.now.images;
    // A step below it changed too, so it would run anyway.
    let on = step.now.on.iter().any(|on| build.steps[*on].runs);
    if changed.is_empty() || !same || on {
        return None;
    }
    let mut entries: Vec<String> = changed.iter().map(|path| beside_the_image(path)).collect::<Option<_>>()?;
    entries.sort();
    entries.dedup();
    let seconds = build.seconds_behind(&[place]);
    let took = seconds.map(|seconds| format!(" ({} with the steps on it)", lasted(seconds))).unwrap_or_default();
    let text = format!(
        "{} ran again{took} only because of {}: if the image does not need it, name it in .dockerignore",
        named(step.now),
        listed(&entries)
    );
    let (file, line) = build.place(step.op);
    Some(Advice { file, line, seconds, text })
}

/// Returns the line for the ignore file if a path is about the project and does not belong in its image. Returns `None` for other
/// paths.
fn beside_the_image(path: &str) -> Option<String> {
    const FOLDERS: &[&str] = &[".git", ".github", ".gitlab", ".circleci", ".vscode", ".idea"];
    const FILES: &[&str] =
        &[".dockerignore", ".gitignore", ".gitattributes", ".travis.yml", ".gitlab-ci.yml", "Jenkinsfile", "Makefile"];
    const STARTS: &[&str] = &["Dockerfile", "buildspec", "README", "CHANGELOG", "LICENSE", "docker-compose"];
    let top = path.split('/').next().unwrap_or(path);
    if FOLDERS.contains(&top) {
        return Some(top.to_owned());
    }
    let known = !path.contains('/') && (FILES.contains(&path) || STARTS.iter().any(|start| path.starts_with(start)));
    known.then(|| path.to_owned())
}

/// Returns whether a variable's name stands for a commit, a version, a time or a number of a build.
fn stands_for_a_build(name: &str) -> bool {
    const PARTS: &[&str] =
        &["COMMIT", "SHA", "SHA1", "REVISION", "REV", "VERSION", "BUILD", "DATE", "TIMESTAMP", "TAG", "RELEASE", "PIPELINE"];
    name.split('_').any(|part| PARTS.contains(&&*part.to_uppercase()))
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(part) && !after.starts_with(part)
    })
}

/// Returns the last line above a command that declares the variable, or `None` if there is none.
fn declared(build: &Build<'_>, file: &str, name: &str, above: u32) -> Option<u32> {
    let text = build.graph.text(file)?;
    let declares = |line: &str| {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default().to_uppercase();
        matches!(&*first, "ARG" | "ENV") && words.any(|word| word.split('=').next() == Some(name))
    };
    let above = usize::try_from(above).ok()?.saturating_sub(1);
    let line = text.lines().take(above).enumerate().filter(|(_, line)| declares(line)).last();
    line.and_then(|(at, _)| u32::try_from(at + 1).ok())
}

fn text_of<'a>(build: &Build<'a>, file: &str, line: u32) -> Option<&'a str> {
    build.graph.text(file)?.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)
}

/// Returns the start of a digest, like `sha256:0123456789ab`.
fn start(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(20) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
