//! What of a state file operations can meet: as much as they may, and no more than has to be there.
//!
//! BuildKit's copier decides what an operation does; here it is only told apart what it can look at. More than it does look at is
//! no harm, less would be.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bollard_buildkit_proto::pb;

use super::assemble::leads_to;
use super::index::{Kind, Met, PathIndex, joined};
use crate::context::{NodeKind, Tree};
use crate::domain::{shown, spelled_text};

/// The files whose text names owners.
const OWNERS: [&str; 2] = ["etc/passwd", "etc/group"];

/// A file operation on a state, or on what another made of it.
pub struct Open<'a> {
    /// The operation.
    pub operation: &'a pb::FileOp,
    /// All that it takes out of its inputs, or more.
    pub taken: Vec<&'a Tree>,
}

/// Why it is not sure what an operation meets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsure(pub String);

/// The paths of a state that these operations, one after another, can meet.
///
/// # Errors
/// If something of that is not known.
pub fn reach(state: &PathIndex, operations: &[Open<'_>]) -> Result<BTreeMap<String, Met>, Unsure> {
    let mut reach = Reach { state, met: BTreeMap::new(), new_links: HashSet::new(), walked: BTreeSet::new() };
    for operation in operations {
        let names = names(operation);
        reach.walked.clear();
        for action in &operation.operation.actions {
            reach.action(action, &names)?;
        }
        for tree in &operation.taken {
            let links = tree.iter().filter(|(_, node)| matches!(node.kind, NodeKind::Link(_)));
            reach.new_links.extend(links.filter_map(|(path, _)| path.rsplit('/').next().map(str::to_owned)));
        }
    }
    Ok(reach.met)
}

/// The names of all that an operation can make: what it takes, and what it calls that.
fn names(operation: &Open<'_>) -> HashSet<String> {
    let mut names: HashSet<String> = HashSet::new();
    let mut add = |path: &str| names.extend(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
    for tree in &operation.taken {
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
    met: BTreeMap<String, Met>,
    /// Names of links that earlier operations may have made: where a path leads through one is not known here.
    new_links: HashSet<String>,
    /// Directories whose content was gone through for this operation.
    walked: BTreeSet<String>,
}

impl Reach<'_> {
    fn action(&mut self, action: &pb::FileAction, names: &HashSet<String>) -> Result<(), Unsure> {
        let unsure = |what: &str| Err(Unsure(what.to_owned()));
        match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => {
                if copy.attempt_unpack_docker_compatibility {
                    return unsure("an archive may be unpacked");
                }
                self.owner(copy.owner.as_ref())?;
                let directory = self.path(&spelled_text(&copy.dest))?;
                self.content(&directory, names)
            }
            Some(pb::file_action::Action::Mkfile(made)) => {
                self.owner(made.owner.as_ref())?;
                self.path(&spelled_text(&made.path)).map(drop)
            }
            Some(pb::file_action::Action::Mkdir(made)) => {
                self.owner(made.owner.as_ref())?;
                self.path(&spelled_text(&made.path)).map(drop)
            }
            Some(pb::file_action::Action::Symlink(made)) => {
                self.owner(made.owner.as_ref())?;
                // Where it lies, itself not followed.
                let path = spelled_text(&made.newpath);
                let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let above = self.path(above)?;
                self.new_links.insert(name.to_owned());
                self.put(&joined(&above, name))
            }
            _ => unsure("hakobi does not know what this operation meets"),
        }
    }

    /// A path with all that leads there; gives where that is.
    fn path(&mut self, path: &str) -> Result<String, Unsure> {
        let (end, links) = self.state.walk(path).ok_or_else(|| Unsure(format!("{path} leads through too many links")))?;
        // BuildKit takes `..` away as text: links upwards may lead it elsewhere than the kernel.
        if leads_to(self.state, path).ok().as_ref() != Some(&end) {
            return Err(Unsure(format!("{path} leads through links that lead upwards")));
        }
        for on_the_way in links.iter().map(String::as_str).chain([path, &end]) {
            if let Some(name) = on_the_way.split('/').find(|name| self.new_links.contains(*name)) {
                return Err(Unsure(format!("{} on the way to {path} may be a link that was copied before", shown(name))));
            }
        }
        for path in links.iter().chain([&end]) {
            self.put(path)?;
        }
        Ok(end)
    }

    /// A path and the directories above it, as far as there are any.
    fn put(&mut self, path: &str) -> Result<(), Unsure> {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let path = &path[..end];
            let Some(met) = self.state.get(path) else { return Ok(()) };
            if self.met.contains_key(path) {
                continue;
            }
            if met.implied {
                return Err(Unsure(format!("a layer of the base does not say what the directory /{} is", shown(path))));
            }
            if met.kind == Kind::Other {
                return Err(Unsure(format!("/{} in the base is neither a file nor a directory nor a link", shown(path))));
            }
            self.met.insert(path.to_owned(), met.clone());
        }
        Ok(())
    }

    /// All below a directory that has only such names, and what links among it lead to.
    fn content(&mut self, directory: &str, names: &HashSet<String>) -> Result<(), Unsure> {
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

    /// What names of owners are looked up in.
    fn owner(&mut self, owner: Option<&pb::ChownOpt>) -> Result<(), Unsure> {
        let by_name =
            |user: &Option<pb::UserOpt>| matches!(user, Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(_)) }));
        if !owner.is_some_and(|owner| by_name(&owner.user) || by_name(&owner.group)) {
            return Ok(());
        }
        for path in OWNERS {
            let end = self.path(path)?;
            match self.state.get(&end) {
                None => {}
                Some(met) if met.text.is_some() => {}
                Some(_) => return Err(Unsure(format!("what is in /{path} of the base is not known"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::append::LayerIndex;
    use crate::context::Node;

    fn state() -> PathIndex {
        let mut layer = LayerIndex::default();
        let directory = || Met::directory(0o755, (0, 0), 7);
        for path in ["usr", "usr/share", "usr/share/app", "usr/share/app/static", "usr/share/app/other", "etc"] {
            layer.insert(path, directory());
        }
        layer.insert("srv", Met::plain(Kind::Link("usr/share".to_owned())));
        layer.insert("usr/share/app/static/a.css", Met::plain(Kind::File));
        layer.insert("usr/share/app/static/b.css", Met::plain(Kind::File));
        layer.insert("usr/share/app/current", Met::plain(Kind::Link("/etc".to_owned())));
        layer.insert("etc/a.css", Met::plain(Kind::File));
        layer.insert("etc/passwd", Met { text: Some("app:x:7:8::/:\n".to_owned()), ..Met::plain(Kind::File) });
        layer.insert("dev/null", Met::plain(Kind::Other));
        PathIndex::of([&layer])
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

    fn reached(dest: &str, taken: &[&str]) -> Result<Vec<String>, Unsure> {
        let (operation, taken) = (copy(dest), tree(taken));
        let met = reach(&state(), &[Open { operation: &operation, taken: vec![&taken] }])?;
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
    fn what_is_not_known_is_told() {
        assert!(reached("/dev", &["null"]).unwrap_err().0.contains("neither"));
        let first = copy("/usr");
        let second = copy("/usr/link/x");
        let taken = tree(&["link"]);
        let open = |operation| Open { operation, taken: vec![&taken] };
        assert!(reach(&state(), &[open(&first), open(&second)]).unwrap_err().0.contains("copied before"));
        assert!(reach(&state(), &[open(&second)]).is_ok());
        let mut layer = LayerIndex::default();
        layer.insert("a", Met::directory(0o755, (0, 0), 1));
        layer.insert("a/b", Met::plain(Kind::Link("/usr/share".to_owned())));
        layer.insert("c", Met::plain(Kind::Link("a/b/../x".to_owned())));
        let mut odd = state();
        odd.apply(&layer);
        let upwards = copy("/c/y");
        assert!(reach(&odd, &[open(&upwards)]).unwrap_err().0.contains("upwards"));
    }

    #[test]
    fn names_of_owners_come_with_what_tells_them() {
        let mut operation = copy("/new");
        let named = pb::NamedUserOpt { name: "app".to_owned(), input: 0 };
        let user = Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) });
        if let Some(pb::file_action::Action::Copy(copy)) = &mut operation.actions[0].action {
            copy.owner = Some(pb::ChownOpt { user, group: None });
        }
        let met = reach(&state(), &[Open { operation: &operation, taken: Vec::new() }]).unwrap();
        assert!(met["etc/passwd"].text.is_some());
    }
}
