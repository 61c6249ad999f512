//! Finds the paths of a state that file operations can touch. A skeleton must contain all of these.
//!
//! BuildKit's copier decides what an operation does; this module only finds the paths that it may look at. Additional paths do no
//! harm; missing paths would.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bollard_buildkit_proto::pb;

use super::archive_paths::ArchivePath;
use super::assemble::leads_to;
use super::entry::{Kind, PathEntry};
use super::index::PathIndex;
use super::paths::joined;
use super::routes::{NewLinks, UnknownPaths, routes};
use crate::build_context::{NodeKind, Tree};
use crate::domain::{shown, spelled_text};

/// The files that map the names of owners to numbers.
const OWNERS: [&str; 2] = ["etc/passwd", "etc/group"];

/// A file operation on a state, or on the result of another operation.
pub struct PendingCopy<'a> {
    /// The operation.
    pub operation: &'a pb::FileOp,
    /// All files that it copies from its inputs, or more.
    pub copied: Vec<&'a Tree>,
    /// The paths of the archives that it may unpack.
    pub archive_paths: Vec<ArchivePath>,
}

/// Returns the paths of a state that these operations, one after another, can touch.
///
/// # Errors
/// If some of these paths are not known.
pub fn reachable_paths(state: &PathIndex, operations: &[PendingCopy<'_>]) -> Result<BTreeMap<String, PathEntry>, UnknownPaths> {
    let mut reachable_paths = Reach { state, met: BTreeMap::new(), new_links: NewLinks::new(), walked: BTreeSet::new() };
    for operation in operations {
        let names = names(operation);
        reachable_paths.walked.clear();
        for action in &operation.operation.actions {
            reachable_paths.action(action, &names, operation)?;
        }
    }
    Ok(reachable_paths.met)
}

/// Returns all names that an operation can create: the names of the copied files, and their names at the destination.
fn names(operation: &PendingCopy<'_>) -> HashSet<String> {
    let mut names: HashSet<String> = HashSet::new();
    let mut add = |path: &str| names.extend(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
    for tree in &operation.copied {
        tree.iter().for_each(|(path, _)| add(&path));
    }
    for action in &operation.operation.actions {
        if let Some(pb::file_action::Action::Copy(copy)) = &action.action {
            add(&spelled_text(&copy.src));
        }
    }
    names
}

struct Reach<'a> {
    state: &'a PathIndex,
    met: BTreeMap<String, PathEntry>,
    /// Links that earlier operations may have created.
    new_links: NewLinks,
    /// Directories whose content was visited for this operation.
    walked: BTreeSet<String>,
}

impl Reach<'_> {
    /// Adds the links that a copy may create. Each may be in the destination, under its own name with any of its parent
    /// directories, or be the destination itself.
    fn add_links(&mut self, destination: &str, copied: &[&Tree]) {
        for (path, node) in copied.iter().flat_map(|tree| tree.iter()) {
            let NodeKind::Link(target) = &node.kind else { continue };
            let below = path.match_indices('/').map(|(slash, _)| &path[slash + 1..]).chain([&*path]);
            let places = below.map(|below| joined(destination, below)).chain([destination.to_owned()]);
            for place in places {
                self.new_links.entry(place).or_default().insert(target.clone());
            }
        }
    }

    /// Adds the paths that an archive touches. The directory where it is unpacked is its root (`archive.Untar` under `chroot`).
    fn unpacked(&mut self, directory: &str, archive_paths: &[ArchivePath]) -> Result<(), UnknownPaths> {
        for entry in archive_paths {
            for (path, link) in [(Some(&entry.path), entry.link.as_ref()), (entry.same.as_ref(), None)] {
                let Some(path) = path else { continue };
                let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
                let found = routes(self.state, &self.new_links, directory, above)?;
                for link in &found.links {
                    self.put(link)?;
                }
                for end in found.ends {
                    let place = joined(&end, name);
                    self.put(&place)?;
                    if let Some(target) = link {
                        self.new_links.entry(place).or_default().insert(target.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn action(&mut self, action: &pb::FileAction, names: &HashSet<String>, open: &PendingCopy<'_>) -> Result<(), UnknownPaths> {
        let unsure = |what: &str| Err(UnknownPaths(what.to_owned()));
        match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => {
                self.owner(copy.owner.as_ref())?;
                for directory in self.path(&spelled_text(&copy.dest))? {
                    self.content(&directory, names)?;
                    if copy.attempt_unpack_docker_compatibility {
                        self.unpacked(&directory, &open.archive_paths)?;
                    }
                    self.add_links(&directory, &open.copied);
                }
                Ok(())
            }
            Some(pb::file_action::Action::Mkfile(made)) => {
                self.owner(made.owner.as_ref())?;
                // BuildKit opens a pipe or a device and writes into it.
                for end in self.path(&spelled_text(&made.path))? {
                    if self.state.get(&end).is_some_and(|met| met.kind == Kind::Other) {
                        return unsure(&format!("/{} in the base is neither a file nor a directory nor a link", shown(&end)));
                    }
                }
                Ok(())
            }
            Some(pb::file_action::Action::Mkdir(made)) => {
                self.owner(made.owner.as_ref())?;
                self.path(&spelled_text(&made.path)).map(drop)
            }
            Some(pb::file_action::Action::Symlink(made)) => {
                self.owner(made.owner.as_ref())?;
                // The path of the link itself, which is not followed.
                let path = spelled_text(&made.newpath);
                let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
                for above in self.path(above)? {
                    let place = joined(&above, name);
                    self.put(&place)?;
                    self.new_links.entry(place).or_default().insert(spelled_text(&made.oldpath).into_owned());
                }
                Ok(())
            }
            _ => unsure("hakobi cannot determine which paths this operation touches"),
        }
    }

    /// Adds a path with all links on its way. Returns where it can end.
    fn path(&mut self, path: &str) -> Result<BTreeSet<String>, UnknownPaths> {
        // Only the daemon's machine knows where some paths lead.
        leads_to(self.state, path).map_err(|why| UnknownPaths(why.to_string()))?;
        let found = routes(self.state, &self.new_links, "", path)?;
        for path in found.links.iter().chain(&found.ends) {
            self.put(path)?;
        }
        Ok(found.ends)
    }

    /// Adds a path and its parent directories, as far as they exist.
    fn put(&mut self, path: &str) -> Result<(), UnknownPaths> {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let path = &path[..end];
            let Some(met) = self.state.get(path) else { return Ok(()) };
            if self.met.contains_key(path) {
                continue;
            }
            if met.implied {
                return Err(UnknownPaths(format!(
                    "no layer of the base determines the metadata of the directory /{}",
                    shown(path)
                )));
            }
            self.met.insert(path.to_owned(), met.clone());
        }
        Ok(())
    }

    /// Adds all paths below a directory that consist of these names, and the paths that links among them lead to.
    fn content(&mut self, directory: &str, names: &HashSet<String>) -> Result<(), UnknownPaths> {
        if !self.walked.insert(directory.to_owned()) {
            return Ok(());
        }
        let state = self.state;
        let from = if directory.is_empty() { 0 } else { directory.len() + 1 };
        let mut links = Vec::new();
        for (path, met) in state.below(directory) {
            if path[from..].split('/').all(|name| names.contains(name)) {
                self.put(path)?;
                links.extend(matches!(met.kind, Kind::Link(_)).then(|| path.to_owned()));
            }
        }
        for link in links {
            let Some((end, on_the_way)) = state.walk(&link) else { continue };
            for path in on_the_way.iter().chain([&end]) {
                self.put(path)?;
            }
            self.content(&end, names)?;
        }
        Ok(())
    }

    /// Adds the files in which names of owners are looked up.
    fn owner(&mut self, owner: Option<&pb::ChownOpt>) -> Result<(), UnknownPaths> {
        let by_name =
            |user: &Option<pb::UserOpt>| matches!(user, Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(_)) }));
        if !owner.is_some_and(|owner| by_name(&owner.user) || by_name(&owner.group)) {
            return Ok(());
        }
        for path in OWNERS {
            for end in self.path(path)? {
                match self.state.get(&end) {
                    Some(met) if matches!(met.kind, Kind::File | Kind::Other) && met.text.is_none() => {
                        return Err(UnknownPaths(format!("hakobi does not know the content of /{path} in the base")));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_context::Node;
    use crate::layers::LayerIndex;

    fn state() -> PathIndex {
        let mut layer = LayerIndex::default();
        let directory = || PathEntry::directory(0o755, (0, 0), 7);
        for path in ["usr", "usr/share", "usr/share/app", "usr/share/app/static", "usr/share/app/other", "etc"] {
            layer.insert(path, directory());
        }
        layer.insert("srv", PathEntry::plain(Kind::Link("usr/share".to_owned())));
        layer.insert("usr/share/app/static/a.css", PathEntry::plain(Kind::File));
        layer.insert("usr/share/app/static/b.css", PathEntry::plain(Kind::File));
        layer.insert("usr/share/app/current", PathEntry::plain(Kind::Link("/etc".to_owned())));
        layer.insert("etc/a.css", PathEntry::plain(Kind::File));
        layer.insert("etc/passwd", PathEntry { text: Some("app:x:7:8::/:\n".to_owned()), ..PathEntry::plain(Kind::File) });
        layer.insert("dev/null", PathEntry::plain(Kind::Other));
        PathIndex::from_layers([&layer])
    }

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            let kind = if path.ends_with("link") { NodeKind::Link("x".to_owned()) } else { NodeKind::Directory };
            tree.insert(path, Node { kind, mode: 0o755, owner: (0, 0), xattrs: BTreeMap::new() });
        }
        tree
    }

    fn copy(dest: &str) -> pb::FileOp {
        let copy = pb::FileActionCopy { src: "/site".to_owned(), dest: dest.to_owned(), ..Default::default() };
        let action = pb::FileAction { action: Some(pb::file_action::Action::Copy(copy)), ..Default::default() };
        pb::FileOp { actions: vec![action] }
    }

    fn reached(dest: &str, copied: &[&str]) -> Result<Vec<String>, UnknownPaths> {
        let (operation, copied) = (copy(dest), tree(copied));
        let met = reachable_paths(
            &state(),
            &[PendingCopy { operation: &operation, copied: vec![&copied], archive_paths: Vec::new() }],
        )?;
        Ok(met.into_keys().collect())
    }

    #[test]
    fn only_what_has_the_names_of_what_is_copied_is_met() {
        let met = reached("/srv/app", &["site/static/a.css"]).unwrap();
        assert_eq!(met, ["srv", "usr", "usr/share", "usr/share/app", "usr/share/app/static", "usr/share/app/static/a.css"]);
        assert_eq!(reached("/new/place", &["a.css"]).unwrap(), [""; 0]);
        let through = reached("/usr/share/app", &["current/a.css"]).unwrap();
        assert!(through.contains(&"etc/a.css".to_owned()), "{through:?}");
    }

    #[test]
    fn every_place_is_met_that_a_link_may_lead_to() {
        // The second copy's path contains a link of the first copy.
        let (first, second) = (copy("/usr/share"), copy("/usr/share/link/static"));
        let mut copied = tree(&["a.css"]);
        let kind = NodeKind::Link("app".to_owned());
        copied.insert("link", Node { kind, mode: 0o777, owner: (0, 0), xattrs: BTreeMap::new() });
        let open = |operation| PendingCopy { operation, copied: vec![&copied], archive_paths: Vec::new() };
        let met = reachable_paths(&state(), &[open(&first), open(&second)]).unwrap();
        assert!(met.contains_key("usr/share/app/static/a.css"), "{met:?}");
        let met = reachable_paths(&state(), &[open(&second)]).unwrap();
        assert!(!met.contains_key("usr/share/app/static"), "{met:?}");
        // The kernel resolves `..` from the link's target, BuildKit from the link itself.
        let mut layer = LayerIndex::default();
        layer.insert("c", PathEntry::plain(Kind::Link("srv/../share/app".to_owned())));
        layer.insert("share", PathEntry::directory(0o755, (0, 0), 1));
        layer.insert("share/app", PathEntry::directory(0o755, (0, 0), 1));
        let mut odd = state();
        odd.apply(&layer);
        let (upwards, copied) = (copy("/c/y"), tree(&["a.css"]));
        let met = reachable_paths(&odd, &[PendingCopy { operation: &upwards, copied: vec![&copied], archive_paths: Vec::new() }])
            .unwrap();
        assert!(met.contains_key("share/app") && met.contains_key("usr/share/app"), "{met:?}");
    }

    #[test]
    fn an_archive_meets_what_its_paths_name() {
        let mut add = copy("/usr/share");
        let Some(pb::file_action::Action::Copy(action)) = &mut add.actions[0].action else { panic!() };
        action.attempt_unpack_docker_compatibility = true;
        let entry = |path: &str, link: Option<&str>, same: Option<&str>| ArchivePath {
            path: path.to_owned(),
            link: link.map(str::to_owned),
            same: same.map(str::to_owned),
        };
        let archive_paths = vec![entry("new", Some("/app/static"), None), entry("new/b.css", None, Some("app/other"))];
        let met = reachable_paths(&state(), &[PendingCopy { operation: &add, copied: Vec::new(), archive_paths }]).unwrap();
        let met: Vec<String> = met.into_keys().collect();
        // `/` is the directory where the archive is unpacked.
        let expected =
            ["usr", "usr/share", "usr/share/app", "usr/share/app/other", "usr/share/app/static", "usr/share/app/static/b.css"];
        assert_eq!(met, expected);
    }

    #[test]
    fn what_is_not_known_is_told() {
        assert_eq!(reached("/dev", &["null"]).unwrap(), ["dev", "dev/null"], "a copy replaces it as it does a file");
        let made = pb::FileActionMkFile { path: "/dev/null".to_owned(), ..Default::default() };
        let action = pb::FileAction { action: Some(pb::file_action::Action::Mkfile(made)), ..Default::default() };
        let operation = pb::FileOp { actions: vec![action] };
        let open = PendingCopy { operation: &operation, copied: Vec::new(), archive_paths: Vec::new() };
        assert!(reachable_paths(&state(), &[open]).unwrap_err().0.contains("neither"));
    }

    #[test]
    fn names_of_owners_come_with_what_tells_them() {
        let mut operation = copy("/new");
        let named = pb::NamedUserOpt { name: "app".to_owned(), input: 0 };
        let user = Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) });
        if let Some(pb::file_action::Action::Copy(copy)) = &mut operation.actions[0].action {
            copy.owner = Some(pb::ChownOpt { user, group: None });
        }
        let met =
            reachable_paths(&state(), &[PendingCopy { operation: &operation, copied: Vec::new(), archive_paths: Vec::new() }])
                .unwrap();
        assert!(met["etc/passwd"].text.is_some());
    }
}
