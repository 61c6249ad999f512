//! `--auto-mounts`: which commands of a graph get the caches of the tools that they call as mounts.
//!
//! A mount hides what a layer below has at its place, and keeps what the command writes there out of the layer. So a command only gets
//! one if neither can matter: it is in a stage whose result is not the image, nothing copies from there, nothing below has files there,
//! and no later command of the stage needs the directory without getting the same mount.

use std::collections::HashSet;

use bollard_buildkit_proto::pb;

use super::tools::{Cache, Commands, TOOLS, Tool, Used, Variables, is_root, simple_commands, words_of};
use crate::domain::Digest;
use crate::graph::{AddedMount, Graph, Input, Op};

/// Begins the IDs of these mounts, so that they are not those of a Dockerfile.
const PREFIX: &str = "auto:";

/// A mount for a command, if its base image has no files there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoMount {
    /// The command.
    pub step: Digest,
    /// The mount.
    pub mount: AddedMount,
    /// The source of the base image that the command builds on.
    pub base: Digest,
    /// Places in the base image that must have no files.
    pub without: Vec<String>,
}

/// Returns the mounts that a graph's commands get, if their base images have no files there.
#[must_use]
pub fn possible_mounts(graph: &Graph) -> Vec<AutoMount> {
    let seen = Seen::new(graph);
    let mut wishes: Vec<Wish<'_>> = (0..seen.commands.len()).flat_map(|at| seen.wishes(at)).collect();
    // A mount that falls away may take others with it.
    loop {
        let before = wishes.len();
        let kept: Vec<bool> = wishes.iter().map(|wish| seen.is_safe_beside(wish, &wishes)).collect();
        let mut kept = kept.into_iter();
        wishes.retain(|_| kept.next().unwrap_or_default());
        if wishes.len() == before {
            break;
        }
    }
    wishes.into_iter().filter_map(|wish| seen.mount(wish)).collect()
}

/// A mount that a command could have.
struct Wish<'a> {
    /// The command's place in [`Seen::commands`].
    command: usize,
    tool: &'static Tool,
    cache: &'static Cache,
    folder: String,
    base: &'a Digest,
}

/// A command of the graph.
struct Command<'a> {
    op: &'a Op,
    exec: &'a pb::ExecOp,
    text: String,
    env: Variables,
    user: &'a str,
    /// The steps that its layers come from, with itself.
    lineage: Vec<&'a Op>,
}

impl Command<'_> {
    fn is_on(&self, other: &Self) -> bool {
        self.lineage.iter().any(|op| op.digest == other.op.digest)
    }

    fn calls(&self) -> Commands<'_> {
        simple_commands(&self.text)
    }

    /// Returns whether it calls a tool that uses a cache.
    fn runs(&self, tool: &Tool) -> bool {
        let calls = self.calls();
        let is_of_system = calls.calls.iter().any(|call| call.tool.of_system);
        calls.calls.iter().any(|call| call.tool == tool) || tool.wraps(&self.env) && !is_of_system
    }
}

/// What takes files out of a state.
struct Taken {
    lineage: HashSet<Digest>,
    path: String,
}

/// A graph as the rules see it.
struct Seen<'a> {
    commands: Vec<Command<'a>>,
    taken: Vec<Taken>,
}

impl<'a> Seen<'a> {
    fn new(graph: &'a Graph) -> Self {
        let all = graph.below(graph.result());
        let lineage = |state: &Input| graph.lineage(state).into_iter().map(|op| op.digest.clone()).collect();
        let mut taken = vec![Taken { lineage: lineage(graph.result()), path: "/".to_owned() }];
        let mut commands = Vec::new();
        for op in all {
            let takes = sources(op).into_iter();
            taken.extend(takes.map(|(state, path)| Taken { lineage: lineage(&state), path }));
            if let Some(pb::op::Op::Exec(exec)) = &op.op.op
                && let Some(meta) = &exec.meta
            {
                let variables = meta.env.iter().filter_map(|variable| variable.split_once('='));
                commands.push(Command {
                    op,
                    exec,
                    text: words_of(meta),
                    env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                    user: &meta.user,
                    lineage: graph.lineage(&Input { step: op.digest.clone(), output: 0 }),
                });
            }
        }
        Self { commands, taken }
    }

    /// Returns the mounts that a command could have by what it is itself.
    fn wishes(&self, at: usize) -> Vec<Wish<'a>> {
        let command = &self.commands[at];
        let Some(base) = only_image(&command.lineage) else { return Vec::new() };
        if !is_root(command.user) || command.exec.network() == pb::NetMode::None {
            return Vec::new();
        }
        let tools = TOOLS.iter().filter(|tool| command.runs(tool));
        let caches = tools.flat_map(|tool| tool.caches.iter().map(move |cache| (tool, cache)));
        let caches = caches.filter(|(tool, cache)| {
            let by_variable = tool.keeps_none.iter().any(|name| command.env.contains_key(*name));
            let by_option = command.calls().calls.iter().any(|call| call.tool == *tool && call.keeps_none().is_some());
            cache.automatic && !by_variable && !by_option
        });
        let found = caches.filter_map(|(tool, cache)| {
            let folder = cache.folder(&command.env, command.user)?;
            let has_own = command.exec.mounts.iter().any(|mount| mount.dest != "/" && overlap(&mount.dest, &folder));
            let is_plain = folder.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
            (is_plain && !has_own).then_some(Wish { command: at, tool, cache, folder, base })
        });
        found.collect()
    }

    /// Returns whether a mount can change nothing but the time that the build takes, if the other commands get these mounts.
    fn is_safe_beside(&self, wish: &Wish<'_>, wishes: &[Wish<'_>]) -> bool {
        let own = &self.commands[wish.command];
        let is_taken = |taken: &Taken| taken.lineage.contains(&own.op.digest) && overlap(&taken.path, &wish.folder);
        let writes = |op: &&&Op| op.files().is_some_and(|files| files.actions.iter().any(|action| writes(action, &wish.folder)));
        if self.taken.iter().any(is_taken) || own.lineage.iter().any(|op| writes(&op)) {
            return false;
        }
        self.commands.iter().enumerate().all(|(at, other)| {
            let (is_before, is_after) = (own.is_on(other), other.is_on(own));
            if !is_before && !is_after {
                return true;
            }
            let gets = wishes.iter().any(|one| one.command == at && one.cache == wish.cache && one.folder == wish.folder);
            let calls = other.calls();
            let mentions = calls_upon(other, wish) || names(&other.text, other, wish);
            let has_own = other.exec.mounts.iter().any(|mount| mount.dest != "/" && overlap(&mount.dest, &wish.folder));
            let may_fill = is_before && other.runs(wish.tool);
            let may_need = wish.cache.used == Used::InPlace && (calls.calls_others || other.runs(wish.tool));
            !mentions && !has_own && (gets || !may_fill && !may_need)
        })
    }

    fn mount(&self, wish: Wish<'_>) -> Option<AutoMount> {
        let mount = AddedMount {
            id: format!("{PREFIX}{}", wish.folder),
            sharing: if wish.cache.locked { pb::CacheSharingOpt::Locked } else { pb::CacheSharingOpt::Shared }.into(),
            target: wish.folder.clone(),
        };
        let without = wish.cache.unless.map(ToOwned::to_owned).into_iter().chain([wish.folder]).collect();
        let step = self.commands.get(wish.command)?.op.digest.clone();
        Some(AutoMount { step, mount, base: wish.base.clone(), without })
    }
}

/// Returns the image that a state is based on. Returns `None` if it has another base, or there is a step that hakobi does not know.
fn only_image<'a>(lineage: &[&'a Op]) -> Option<&'a Digest> {
    let known = |op: &&Op| matches!(op.op.op, Some(pb::op::Op::Exec(_) | pb::op::Op::File(_) | pb::op::Op::Merge(_)));
    let mut others = lineage.iter().filter(|op| !known(op));
    match (others.next(), others.next()) {
        (Some(image), None) if image.image().is_some_and(|name| name.contains('@')) => Some(&image.digest),
        _ => None,
    }
}

/// Returns the states that a step takes files from without building on them, with the places there.
fn sources(op: &Op) -> Vec<(Input, String)> {
    let input = |index: i64| op.inputs.get(usize::try_from(index).ok()?).cloned();
    match &op.op.op {
        Some(pb::op::Op::File(files)) => {
            let copies = files.actions.iter().filter_map(|action| match &action.action {
                Some(pb::file_action::Action::Copy(copy)) => Some((input(action.secondary_input)?, before_wildcards(&copy.src))),
                _ => None,
            });
            copies.collect()
        }
        Some(pb::op::Op::Exec(exec)) => {
            let mounts = exec.mounts.iter().filter(|mount| mount.dest != "/");
            mounts.filter_map(|mount| Some((input(mount.input)?, rooted(&mount.selector)))).collect()
        }
        // A merge builds on all its inputs.
        Some(pb::op::Op::Merge(_)) | None => Vec::new(),
        _ => op.inputs.iter().map(|input| (input.clone(), "/".to_owned())).collect(),
    }
}

/// Returns the directory above the first component with a wildcard.
fn before_wildcards(path: &str) -> String {
    let plain = path.split('/').take_while(|part| !part.contains(['*', '?', '[', '\\']));
    rooted(&plain.collect::<Vec<_>>().join("/"))
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// Returns whether a file action may put files at or below a path.
fn writes(action: &pb::FileAction, folder: &str) -> bool {
    match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => overlap(&copy.dest, folder),
        Some(pb::file_action::Action::Mkfile(file)) => overlap(&file.path, folder),
        Some(pb::file_action::Action::Symlink(link)) => overlap(&link.newpath, folder),
        _ => false,
    }
}

/// Returns whether one of two paths is the other, or above it.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let is_above =
        |above: &str, below: &str| below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_above(one, other) || is_above(other, one)
}

/// Returns whether a command calls a tool in a way that relies on what its cache has, or has no network.
fn calls_upon(command: &Command<'_>, wish: &Wish<'_>) -> bool {
    let relies =
        |words: &[&str]| words.iter().any(|word| wish.tool.relies.iter().any(|relies| word.trim_matches(['"', '\'']) == *relies));
    let parts = command.text.split(['\n', ';', '&', '|', '(', ')', '`']);
    let of_tool =
        |words: &Vec<&str>| words.iter().any(|word| wish.tool.programs.contains(&word.rsplit('/').next().unwrap_or_default()));
    let mut calls = parts.map(|part| part.split_whitespace().collect::<Vec<_>>()).filter(of_tool);
    let is_cut_off = command.exec.network() == pb::NetMode::None && command.runs(wish.tool);
    calls.any(|words| relies(&words)) || command.text.contains("offline") || is_cut_off
}

/// Returns whether a text names the place of a cache, a directory above it, or a variable that sets it.
fn names(text: &str, command: &Command<'_>, wish: &Wish<'_>) -> bool {
    let variables = wish.cache.variables.iter().map(|(name, _)| *name).chain(["HOME="]);
    if variables.into_iter().any(|name| text.contains(name)) {
        return true;
    }
    let home = command.env.get("HOME").map_or("/root", |home| home.trim_end_matches('/'));
    let text = text.replace("${HOME}", home).replace("$HOME", home);
    let mut words = text.split(|char: char| char.is_whitespace() || "=:,;&|()<>\"'`".contains(char));
    words.any(|word| {
        let word = match word.strip_prefix('~') {
            Some(below) => format!("{home}{below}"),
            None => word.to_owned(),
        };
        // `cp app /` puts a file there, and reads nothing.
        word.starts_with('/') && word != "/" && overlap(&before_wildcards(&word), &wish.folder)
    })
}

#[cfg(test)]
#[path = "auto_mounts_tests.rs"]
mod tests;
