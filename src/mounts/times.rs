//! The times with which hakobi sends the context's files to a build that uses carried cache mounts.
//!
//! A tool that decides by time compares a source with what it made of it, which is in a mount. Times are in no key, so hakobi may
//! choose them. A record of a build's times goes with the mounts of that build. In the next build
//! - a path with the content that it has in the record gets the time that it has there;
//! - every other path gets a time that is later than everything in the mounts and in the record, whatever its own says.
//!
//! **Why no tool skips a file that changed.** Say that an object in a mount was made of some content of a path. The claim is: if the
//! record has the path with other content, its time there is later than the object's. It holds when the object is made, because the
//! record then has just that content. It holds after each later build. If the path's content is again that of the last record, its
//! time is the same. If it differs, the new time is later than everything in the mounts, so later than the object. That includes a
//! file that went back to older content, because the record knows only the last one. It also includes a path that was not sent in
//! between, because the record lacks it.
//!
//! The claim needs these rules of the callers:
//! - **Mounts are never newer than the times beside them.** A build that saves mounts saves its times with them, and a build that
//!   fails saves neither. A mount may be older: then a tool does too much, never too little. So if no step with a mount ran, both
//!   records will do: the former one, or its mounts with the times of this build. hakobi leaves the former one.
//! - **The mounts are what the record says**: brought in from its snapshot, or found with the same content. A mount that holds
//!   anything else (the daemon's own) has objects that the record knows nothing about. Then the files have their own times, as in a
//!   plain build.
//! - **A file has the chosen time when the tool sees it.** A layer from the cache has the times of the build that made it. If a file
//!   goes back to older content, so do the layer and the time in it, while the object in the mount is newer. So copies of the context
//!   directly below a step with carried mounts run again, and beside other cached layers that the step did not see in the build of
//!   the mounts, these stay empty. The same holds for what the daemon itself has of other builds (`executor/daemon_results.rs`).
//! - **New times are whole seconds**, because layers cut times to seconds: a fraction would make a file older than it was sent. Only
//!   the first record, of files with their own times, has fractions, and the mounts beside it have no objects of other content.
//!
//! The record is by path and not by selection: a path has one content in a build, whichever steps select it. It keeps the latest time
//! that it ever gave, so that a time never stands for two contents of a path. Some tools (Python's compiled modules) compare for
//! equality.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::build_context::{NodeKind, Tree};
use crate::domain::Digest;

const SECOND: i64 = 1_000_000_000;

/// The content of local directories by their names (`context`, `dockerfile`, those of named contexts) and the paths in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, BTreeMap<String, Digest>>);

impl Contents {
    /// Returns the content of everything that is sent. A directory may have several trees, because steps select different parts.
    #[must_use]
    pub fn of<'a>(trees: impl IntoIterator<Item = (&'a str, &'a Tree)>) -> Self {
        let mut all = Self::default();
        let mut children: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (directory, tree) in trees {
            let contents = all.0.entry(directory.to_owned()).or_default();
            let children = children.entry(directory).or_default();
            for (path, node) in tree.iter() {
                if let Some((parent, name)) = path.rsplit_once('/') {
                    children.entry(parent.to_owned()).or_default().insert(name.to_owned());
                }
                let content = match &node.kind {
                    NodeKind::File(content) => format!("file {content}"),
                    NodeKind::Link(target) => format!("link {target}"),
                    NodeKind::Directory => {
                        children.entry(path).or_default();
                        continue;
                    }
                    NodeKind::Pipe => "pipe".to_owned(),
                    NodeKind::Device { character, major, minor } => format!("device {character} {major} {minor}"),
                };
                add(contents, path, Digest::hash(content.as_bytes()));
            }
        }
        for (directory, children) in children {
            let contents = all.0.entry(directory.to_owned()).or_default();
            for (path, names) in children {
                // No name has a `/`.
                let names: Vec<String> = names.into_iter().collect();
                add(contents, path, Digest::hash(format!("directory {}", names.join("/")).as_bytes()));
            }
        }
        all
    }
}

/// Adds the content of a path. A path that has two contents has neither of them.
fn add(contents: &mut BTreeMap<String, Digest>, path: String, content: Digest) {
    let both = |other: &Digest| Digest::hash(format!("{other} {content}").as_bytes());
    let content = match contents.get(&path) {
        Some(other) if *other != content => both(other),
        _ => content,
    };
    contents.insert(path, content);
}

/// A path as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Digest, i64)", into = "(Digest, i64)")]
pub struct SentPath {
    /// The digest of its kind and content. Mode and owner do not count: their change does not change the time of a file.
    pub content: Digest,
    /// Its time, in nanoseconds since 1970.
    pub time: i64,
}

impl From<(Digest, i64)> for SentPath {
    fn from((content, time): (Digest, i64)) -> Self {
        Self { content, time }
    }
}

impl From<SentPath> for (Digest, i64) {
    fn from(SentPath { content, time }: SentPath) -> Self {
        (content, time)
    }
}

/// The times of the paths that a build sent, by the name of the local directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTimes {
    directories: BTreeMap<String, BTreeMap<String, SentPath>>,
    /// The latest time that this record or one before it has.
    latest: Option<i64>,
}

/// The snapshot of mounts that is brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// The times that were saved with it.
    pub times: ContextTimes,
    /// The latest change of content in any of its mounts, in nanoseconds since 1970. `None` if they are empty.
    pub newest: Option<i64>,
}

impl ContextTimes {
    /// Returns the record of a build: the time with which hakobi sent a path, or else the chosen time. A path that has neither is
    /// left out, and counts as new in the next build.
    #[must_use]
    pub fn record(now: &Contents, chosen: Option<&Self>, sent: impl Fn(&str, &str) -> Option<i64>) -> Self {
        let mut record = Self { latest: chosen.and_then(|chosen| chosen.latest), ..Self::default() };
        for (directory, contents) in &now.0 {
            for (path, content) in contents {
                let chosen = || chosen?.get(directory, path).map(|chosen| chosen.time);
                if let Some(time) = sent(directory, path).or_else(chosen) {
                    record.insert(directory, path, SentPath { content: content.clone(), time });
                }
            }
        }
        record
    }

    /// Returns a path as it was sent. Returns `None` if it was not.
    #[must_use]
    pub fn get(&self, directory: &str, path: &str) -> Option<&SentPath> {
        self.directories.get(directory)?.get(path)
    }

    /// Returns all paths with the names of their directories, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &SentPath)> {
        self.directories.iter().flat_map(|(directory, paths)| paths.iter().map(move |(path, sent)| (&**directory, &**path, sent)))
    }

    fn insert(&mut self, directory: &str, path: &str, sent: SentPath) {
        self.latest = self.latest.max(Some(sent.time));
        self.directories.entry(directory.to_owned()).or_default().insert(path.to_owned(), sent);
    }
}

/// Chooses the times to send with these mounts. `seconds` is the wall clock, in seconds since 1970: what is not in the mounts, but in
/// layers, may have a time of today.
///
/// Returns `None` if no time is later than all in the snapshot: then its mounts must not be used. Without a snapshot there is nothing
/// to choose: the files have their own times, which [`ContextTimes::record`] takes from what was sent.
#[must_use]
pub fn decide(before: &Before, now: &Contents, seconds: i64) -> Option<ContextTimes> {
    let latest = before.times.latest.max(before.newest);
    let after = |latest: i64| latest.div_euclid(SECOND) + i64::from(latest.rem_euclid(SECOND) > 0) + 1;
    let later = latest.map_or(seconds, |latest| after(latest).max(seconds)).checked_mul(SECOND)?;
    let mut times = ContextTimes { latest: before.times.latest, ..ContextTimes::default() };
    for (directory, contents) in &now.0 {
        for (path, content) in contents {
            let kept = before.times.get(directory, path).filter(|kept| kept.content == *content);
            let time = kept.map_or(later, |kept| kept.time);
            times.insert(directory, path, SentPath { content: content.clone(), time });
        }
    }
    Some(times)
}

#[cfg(test)]
#[path = "times_tests.rs"]
mod tests;
