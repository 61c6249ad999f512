//! `--auto-mounts`: which commands of a graph get the caches of the tools that they call as mounts.
//!
//! A mount hides what a layer below has at its place, and keeps what the command writes there out of the layer. So a command only gets
//! one if neither can matter: it is in a stage whose result is not the image, nothing copies from there, nothing below has files there,
//! and no other command of the stage reads the directory, or would miss what is in it. A cached layer may have been made with another
//! content of the mount than there is now, or with none.

use std::collections::{HashMap, HashSet};

use bollard_buildkit_proto::pb;

use super::tools::{Automatic, Cache, Call, Commands, TOOLS, Tool, Used, Variables, is_root, parts, simple_commands, text_of};
use crate::domain::Digest;
use crate::graph::{AddedMount, Graph, Input, Op};

/// Begins the IDs of these mounts, so that they are not those of a Dockerfile.
const PREFIX: &str = "auto:";

/// The length of a base image's name in an ID.
const SHORT: usize = 12;

/// Returns whether `--auto-mounts` made the ID of a mount. The tool checks all that is in such a mount, whoever put it there.
#[must_use]
pub fn is_automatic(id: &str) -> bool {
    id.starts_with(PREFIX)
}

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

/// Returns the mounts that a graph's commands get, if their base images have no files there. The IDs have the digest of the base image,
/// and the namespace that a build gives to the IDs of its mounts.
#[must_use]
pub fn possible_mounts(graph: &Graph, namespace: &str) -> Vec<AutoMount> {
    let texts = graph.below(graph.result()).into_iter().filter_map(|op| Some((&op.digest, text_of(meta(op)?.1)))).collect();
    let seen = Seen::new(graph, &texts);
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
    wishes.into_iter().filter_map(|wish| seen.mount(wish, namespace)).collect()
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
    text: &'a str,
    /// The programs that the text calls.
    calls: Commands<'a>,
    env: Variables,
    user: &'a str,
    cwd: &'a str,
    /// The steps that its layers come from, with itself.
    lineage: Vec<&'a Op>,
}

impl Command<'_> {
    fn is_on(&self, other: &Self) -> bool {
        self.lineage.iter().any(|op| op.digest == other.op.digest)
    }

    /// Returns whether it calls a tool that uses this cache of it.
    fn runs(&self, tool: &Tool, cache: &Cache) -> bool {
        let calls = &self.calls.calls;
        let is_of_system = calls.iter().any(|call| call.tool.of_system);
        let uses = |call: &Call<'_>| call.tool == tool && !(cache.of_builds && call.installs);
        calls.iter().any(uses) || tool.wraps(&self.env) && !is_of_system
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
    fn new(graph: &'a Graph, texts: &'a HashMap<&Digest, String>) -> Self {
        let all = graph.below(graph.result());
        let lineage = |state: &Input| graph.lineage(state).into_iter().map(|op| op.digest.clone()).collect();
        let mut taken = vec![Taken { lineage: lineage(graph.result()), path: "/".to_owned() }];
        let mut commands = Vec::new();
        for op in all {
            let takes = sources(op).into_iter();
            taken.extend(takes.map(|(state, path)| Taken { lineage: lineage(&state), path }));
            if let Some((exec, meta)) = meta(op)
                && let Some(text) = texts.get(&op.digest)
            {
                let variables = meta.env.iter().filter_map(|variable| variable.split_once('='));
                commands.push(Command {
                    op,
                    exec,
                    text,
                    calls: simple_commands(text),
                    cwd: &meta.cwd,
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
        let caches = TOOLS.iter().flat_map(|tool| tool.caches.iter().map(move |cache| (tool, cache)));
        let caches = caches.filter(|(tool, cache)| command.runs(tool, cache)).filter(|(tool, cache)| {
            let by_variable = tool.keeps_none.iter().any(|name| command.env.contains_key(*name));
            let by_option = command.calls.calls.iter().any(|call| call.tool == *tool && call.keeps_none().is_some());
            is_automatic_for(command, tool, cache) && !by_variable && !by_option
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
        // It could write into the directory what another build takes for the tool's.
        if wish.cache.used == Used::InPlace && own.calls.calls_others {
            return false;
        }
        self.commands.iter().enumerate().all(|(at, other)| {
            let (is_before, is_after) = (own.is_on(other), other.is_on(own));
            if !is_before && !is_after {
                return true;
            }
            let has_own = other.exec.mounts.iter().any(|mount| mount.dest != "/" && overlap(&mount.dest, &wish.folder));
            if has_own || relies(other, wish) || reads(other, wish) {
                return false;
            }
            if at == wish.command {
                return true;
            }
            match wish.cache.used {
                // Its layer may be cached, and then what it left in the mount is nowhere.
                Used::InPlace => !other.calls.calls_others && !other.runs(wish.tool, wish.cache),
                Used::ByTool => {
                    let gets = |one: &Wish<'_>| one.command == at && one.cache == wish.cache && one.folder == wish.folder;
                    !is_before || !other.runs(wish.tool, wish.cache) || wishes.iter().any(gets)
                }
            }
        })
    }

    fn mount(&self, wish: Wish<'_>, namespace: &str) -> Option<AutoMount> {
        let base = match namespace {
            "" => wish.base.hex().to_owned(),
            namespace => Digest::hash(format!("{namespace}\n{}", wish.base).as_bytes()).hex().to_owned(),
        };
        let mount = AddedMount {
            id: format!("{PREFIX}{}:{}", base.get(..SHORT)?, wish.folder),
            sharing: if wish.cache.locked { pb::CacheSharingOpt::Locked } else { pb::CacheSharingOpt::Shared }.into(),
            target: wish.folder.clone(),
        };
        let without = wish.cache.unless.map(ToOwned::to_owned).into_iter().chain([wish.folder]).collect();
        let step = self.commands.get(wish.command)?.op.digest.clone();
        Some(AutoMount { step, mount, base: wish.base.clone(), without })
    }
}

/// Returns what a step runs. Returns `None` if it runs nothing.
fn meta(op: &Op) -> Option<(&pb::ExecOp, &pb::Meta)> {
    match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => Some((exec, exec.meta.as_ref()?)),
        _ => None,
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

/// Returns whether a cache may be mounted for what a command calls and sees.
fn is_automatic_for(command: &Command<'_>, tool: &Tool, cache: &Cache) -> bool {
    match cache.automatic {
        Automatic::Never(_) => false,
        Automatic::Always => true,
        Automatic::If { variable: (name, value), not } => {
            let in_env = command.env.get(name).is_some_and(|set| set == value);
            let sees = |call: &Call<'_>| in_env || call.before.contains(&&*format!("{name}={value}"));
            let is_other = |call: &Call<'_>| call.words.iter().any(|word| unquoted(word) == not);
            let unset = command.text.matches(name).count() > command.text.matches(&format!("{name}={value}")).count();
            let mut of_tool = command.calls.calls.iter().filter(|call| call.tool == tool);
            !unset && !command.calls.calls_others && of_tool.all(|call| sees(call) && !is_other(call))
        }
    }
}

/// Returns whether a command calls a tool in a way that relies on what its cache has, or has no network.
fn relies(command: &Command<'_>, wish: &Wish<'_>) -> bool {
    let says = |word: &str| {
        let word = unquoted(word);
        let name = word.split([':', '=']).next().unwrap_or_default();
        // The value of such a variable could be any option.
        word.starts_with('$') || wish.tool.relies.iter().any(|relies| *relies == word || *relies == name)
    };
    let is_program = |word: &&str| wish.tool.programs.contains(&unquoted(word).rsplit('/').next().unwrap_or_default());
    let mut calls = parts(command.text).into_iter().filter(|words| words.iter().any(is_program));
    let is_offline = |text: &str| text.to_ascii_lowercase().contains("offline");
    let set = command.env.iter().any(|(name, value)| {
        let is_off = matches!(&*value.to_ascii_lowercase(), "" | "0" | "false" | "no");
        (is_offline(name) && !is_off) || is_offline(value) || wish.tool.relies.contains(&&**name)
    });
    let is_cut_off = command.exec.network() == pb::NetMode::None && command.runs(wish.tool, wish.cache);
    set || is_cut_off || is_offline(command.text) || calls.any(|words| words.into_iter().any(says))
}

/// Returns whether a command may read the place of a cache: it names it, a directory above it or a variable that sets it, or works in a
/// directory above it.
fn reads(command: &Command<'_>, wish: &Wish<'_>) -> bool {
    let text = command.text;
    let variables = wish.cache.variables.iter().map(|(name, _)| *name).chain(["HOME="]);
    if variables.into_iter().any(|name| text.contains(name)) {
        return true;
    }
    if command.calls.reads_around && (overlap(command.cwd, &wish.folder) || text.contains("cd ..") || has_bare_cd(text)) {
        return true;
    }
    let home = command.env.get("HOME").map_or("/root", |home| home.trim_end_matches('/'));
    let text = text.replace("${HOME}", home).replace("$HOME", home);
    let is_named = |word: &str| {
        let word = match word.strip_prefix('~') {
            Some(below) => format!("{home}{below}"),
            None => word.to_owned(),
        };
        word.starts_with('/') && word != "/" && overlap(&before_wildcards(&word), &wish.folder)
    };
    let reads_all = parts(&text).iter().any(|words| {
        let root = words.iter().rposition(|word| matches!(unquoted(word), "/" | "/*" | "/."));
        // `cp app /` only puts a file there.
        let puts = matches!(words.first(), Some(&("cp" | "mv" | "install" | "ln"))) && root == words.len().checked_sub(1);
        root.is_some_and(|_| !puts || words.iter().filter(|word| matches!(unquoted(word), "/" | "/*" | "/.")).count() > 1)
    });
    reads_all || text.split(|char: char| char.is_whitespace() || "=:,;&|()<>\"'`".contains(char)).any(is_named)
}

/// Returns whether a text has a `cd` that leads to the home directory, or back.
fn has_bare_cd(text: &str) -> bool {
    parts(text).iter().any(|words| matches!(&**words, ["cd"] | ["cd", "-"]))
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

#[cfg(test)]
#[path = "auto_mounts_tests.rs"]
mod tests;
