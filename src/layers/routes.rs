//! Finds where a path can lead in a state to which links may have been added: every route that BuildKit or the kernel may take.
//!
//! Additional routes do no harm: a skeleton then has some more paths.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::entry::{Kind, PathEntry};
use super::index::PathIndex;
use super::paths::joined;
use crate::build_context::clean;
use crate::domain::shown;

/// Most places that hakobi visits for one path.
const MOST: usize = 4096;

/// Most links on one route, as in Linux.
const LINKS: usize = 255;

/// Links that may have been added to a state: their possible targets, by their paths.
pub(super) type NewLinks = BTreeMap<String, BTreeSet<String>>;

/// The possible routes of a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// Where the path may end, from the root of the state and without a leading `/`.
    pub(super) ends: BTreeSet<String>,
    /// The links of the state on the routes.
    pub(super) links: BTreeSet<String>,
}

/// A place on a route.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Place {
    /// The path of the place, with all links followed.
    at: String,
    /// The same path as text, with the target of the last link.
    text: String,
    /// The components that remain, the last first.
    open: Vec<String>,
    /// Whether the route contains an added link, or one that leaves its directory.
    added: bool,
    leaves: bool,
}

/// Finds the routes of a path. `root` is the directory that a route cannot leave, itself from the root of the state.
///
/// # Errors
/// If the path leads through too many links, or from an added link to another link in a way that only the daemon's machine decides.
pub(super) fn routes(state: &PathIndex, added: &NewLinks, root: &str, path: &str) -> Result<Routes, UnknownPaths> {
    let start = Place { open: parts(path), ..Place::default() };
    let mut found = Routes::default();
    let mut seen = HashSet::new();
    let mut open = vec![(start, 0)];
    while let Some((mut place, links)) = open.pop() {
        // Links in a circle lead back to a visited place: the daemon walks it on the skeleton as on the whole base image.
        if !seen.insert(place.clone()) {
            continue;
        }
        if seen.len() > MOST || links > LINKS {
            return Err(UnknownPaths(format!("{} goes through too many links", shown(path))));
        }
        let Some(part) = place.open.pop() else {
            found.ends.insert(joined_to(root, &place.at));
            continue;
        };
        match &*part {
            "." => {
                open.push((place, links));
                continue;
            }
            ".." => {
                place.at.truncate(place.at.rfind('/').unwrap_or(0));
                place.text.truncate(place.text.rfind('/').unwrap_or(0));
                open.push((place, links));
                continue;
            }
            _ => {}
        }
        let next = joined(&place.at, &part);
        let here = joined_to(root, &next);
        let below = match state.get(&here) {
            Some(PathEntry { kind: Kind::Link(target), .. }) => Some(target),
            _ => None,
        };
        found.links.extend(below.map(|_| here.clone()));
        let targets = below.map(|target| (target, false)).into_iter();
        let new = added.get(&here).into_iter().flatten().map(|target| (target, true));
        for (target, is_added) in targets.chain(new) {
            let is_added = place.added || is_added;
            // BuildKit asks the kernel about a link behind a link, and the kernel follows the first link in the machine's own root.
            if is_added && place.leaves {
                return Err(UnknownPaths(format!(
                    "{} goes through a link that an earlier step copied, and on to another link",
                    shown(path)
                )));
            }
            let leaves = place.leaves || target.starts_with('/') || target.split('/').any(|part| part == "..");
            let way = |at: String, text: String, open: Vec<String>| Place { at, text, open, added: is_added, leaves };
            let is_absolute = target.starts_with('/');
            // The kernel's way: from the directory that contains the link.
            let (at, text) = if is_absolute { Default::default() } else { (place.at.clone(), place.text.clone()) };
            let rest = place.open.iter().cloned().chain(parts(target)).collect();
            open.push((way(at, text, rest), links + 1));
            // BuildKit's way: it removes `..` from the text and starts again.
            let rest: Vec<&str> = place.open.iter().rev().map(String::as_str).collect();
            let from = if is_absolute { "" } else { &*place.text };
            let text = clean(&format!("/{from}/{target}/{}", rest.join("/")));
            open.push((way(String::new(), String::new(), parts(&text)), links + 1));
        }
        // No link, or a link that was replaced.
        place.text = joined(&place.text, &part);
        place.at = next;
        open.push((place, links));
    }
    Ok(found)
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Joins a root and a path; either may be empty.
fn joined_to(root: &str, path: &str) -> String {
    if path.is_empty() { root.to_owned() } else { joined(root, path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerIndex;

    fn ends(added: &[(&str, &str)], root: &str, path: &str) -> Result<Vec<String>, UnknownPaths> {
        let mut layer = LayerIndex::default();
        for (path, target) in [("to", "real/deep"), ("lex", "to/../x"), ("abs", "/real"), ("loop", "loop"), ("real/up", "../z")] {
            layer.insert(path, PathEntry::plain(Kind::Link(target.to_owned())));
        }
        let mut links = NewLinks::new();
        for (name, target) in added {
            links.entry((*name).to_owned()).or_default().insert((*target).to_owned());
        }
        Ok(routes(&PathIndex::from_layers([&layer]), &links, root, path)?.ends.into_iter().collect())
    }

    #[test]
    fn all_ways_are_found() {
        assert_eq!(ends(&[], "", "/plain/./a"), Ok(vec!["plain/a".to_owned()]));
        let to = ends(&[], "", "/to/a").unwrap();
        assert_eq!(to, ["real/deep/a", "to/a"]);
        // `..` after a link: from the link's target, and in the text.
        let lex = ends(&[], "", "/lex/a").unwrap();
        assert!(lex.contains(&"real/x/a".to_owned()) && lex.contains(&"x/a".to_owned()), "{lex:?}");
        let new = ends(&[("srv/current", "v1"), ("srv/current", "v2")], "", "/srv/current/a").unwrap();
        assert_eq!(new, ["srv/current/a", "srv/v1/a", "srv/v2/a"]);
        let rooted = ends(&[("srv/app/link", "/real/../../up")], "srv/app", "link/a").unwrap();
        assert_eq!(rooted, ["srv/app/link/a", "srv/app/up/a"]);
        // In a circle: the result is the same as without following it.
        assert_eq!(ends(&[], "", "/loop/a"), Ok(vec!["loop/a".to_owned()]));
        assert_eq!(ends(&[("srv/sub", "sub")], "", "/srv/sub"), Ok(vec!["srv/sub".to_owned()]));
    }

    #[test]
    fn what_the_machine_decides_is_told() {
        assert!(ends(&[("new", "/abs")], "", "/new/a").unwrap_err().0.contains("on to another link"));
        assert!(ends(&[("t/a", "a/b")], "", "/t/a").unwrap_err().0.contains("too many links"));
    }
}

/// The reason why the paths of an operation are not certain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownPaths(pub String);
