//! A copy (`file/backend.go`: `docopy`, fsutil `copy/copy.go`).

use std::collections::HashMap;

use bollard_buildkit_proto::pb;

use super::archive::is_file_archive;
use super::doubt::{AssemblyDoubt, refused, unsure};
use super::layer::Content;
use super::source::{Item, ItemKind, Tree};
use super::state::{Node, NodeKind, Owner, Seen, State, parent};
use super::time_of;
use crate::build_context::{InvalidPattern, ParentMatch, PatternMatcher, clean};
use crate::domain::spelled_text;
use crate::layers::paths::joined;

/// The mode of new parent directories.
const DIRECTORY: u32 = 0o755;

/// Copies files into the state.
///
/// # Errors
/// If BuildKit refuses the copy, or the result is not certain.
pub(super) fn copy(
    state: &mut State<'_>,
    tree: &Tree,
    action: &pb::FileActionCopy,
    owner: Option<Owner>,
) -> Result<(), AssemblyDoubt> {
    if !action.mode_str.is_empty() {
        return unsure("its mode is symbolic");
    }
    if !action.required_paths.is_empty() {
        return unsure("it uses --parents");
    }
    let mode = match action.mode {
        -1 => None,
        mode => match u32::try_from(mode) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            // Older versions omit these bits.
            _ => return unsure("its mode has setuid, setgid or sticky bits"),
        },
    };
    let matcher = |patterns: &[String]| match patterns {
        [] => Ok(None),
        patterns => {
            PatternMatcher::new(&patterns.iter().map(|text| spelled_text(text)).collect::<Vec<_>>()).map(Some).map_err(malformed)
        }
    };
    let (source, target) = (clean_path(&spelled_text(&action.src)), clean_path(&spelled_text(&action.dest)));
    if !action.create_dest_path {
        let path = state.resolved(&spelled_text(&action.dest))?;
        if parent(&path).is_some_and(|parent| matches!(state.seen(parent), Ok(Seen::Nothing))) {
            return refused(format!("failed to stat {}: no such file or directory", action.dest));
        }
    }
    let sources = if action.allow_wildcard {
        match tree.expanded(&source, action.follow_symlink)? {
            Some(sources) if !sources.is_empty() => sources,
            Some(_) if action.allow_empty_wildcard => return Ok(()),
            _ => return refused(format!("{source} not found")),
        }
    } else {
        vec![source]
    };
    for source in sources {
        let plain = action.attempt_unpack_docker_compatibility;
        if plain {
            check_plain(tree, &source)?;
        }
        let (include, exclude) = (matcher(&action.include_patterns)?, matcher(&action.exclude_patterns)?);
        let copier = Copier {
            state,
            tree,
            action,
            owner,
            mode,
            time: time_of(action.timestamp)?,
            plain,
            include,
            exclude,
            inodes: HashMap::new(),
            parents: Vec::new(),
        };
        copier.run(&source, &target)?;
    }
    Ok(())
}

/// Checks that BuildKit certainly does not unpack a source.
///
/// # Errors
/// If it may be an archive or cannot be read.
fn check_plain(tree: &Tree, source: &str) -> Result<(), AssemblyDoubt> {
    let at = tree.resolved(source, true)?;
    match tree.get(&at).map(|item| &item.kind) {
        Some(ItemKind::File(Content::Context { file, .. })) => match is_file_archive(file) {
            Ok(false) => Ok(()),
            Ok(true) => unsure(format!("{at} may be an archive")),
            Err(error) => unsure(format!("failed to read {at}: {error}")),
        },
        Some(ItemKind::File(Content::Bytes(bytes))) if super::archive::may_be_archive(bytes) => {
            unsure(format!("{at} may be an archive"))
        }
        _ => Ok(()),
    }
}

/// Copies one source.
struct Copier<'s, 'a> {
    state: &'s mut State<'a>,
    tree: &'s Tree,
    action: &'s pb::FileActionCopy,
    owner: Option<Owner>,
    mode: Option<u32>,
    time: Option<u64>,
    plain: bool,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// The inode numbers of files with several names.
    inodes: HashMap<String, usize>,
    /// The parent directories of the present path.
    parents: Vec<Parent>,
}

/// A directory that is created once a file in it is copied.
struct Parent {
    source: String,
    target: String,
    copied: bool,
}

impl Copier<'_, '_> {
    fn run(mut self, source: &str, target: &str) -> Result<(), AssemblyDoubt> {
        let ensured = match target.rsplit_once('/') {
            Some((directory, name)) if !matches!(name, "" | ".") => directory,
            _ => target,
        };
        let ensured = self.state.resolved(ensured)?;
        let mut made = self.make(&ensured)?;
        let target = self.state.resolved(&clean(target))?;
        let at = self.tree.resolved(source, self.action.follow_symlink)?;
        let is_directory = self.tree.is_directory(&at);
        if !is_directory && self.tree.get(&at).is_none() {
            return refused(format!("\"{source}\": not found"));
        }
        let seen = self.state.seen(&target)?;
        let contents = self.action.dir_copy_contents;
        let into = if is_directory { !contents && seen != Seen::Nothing } else { seen == Seen::Directory };
        let target = if into { joined_name(&target, base(source)) } else { target };
        let above = if contents && is_directory && seen == Seen::Nothing { Some(&*target) } else { parent(&target) };
        made.extend(self.make(above.unwrap_or_default())?);
        self.copy(&at, "", &target, None)?;
        if let Some(time) = self.time {
            for path in made {
                self.state.change(&path, |node| node.modified = Some(time))?;
            }
        }
        Ok(())
    }

    /// Creates the directories down to the destination. Returns the new ones.
    fn make(&mut self, path: &str) -> Result<Vec<String>, AssemblyDoubt> {
        let made = self.state.make_directories(path, DIRECTORY, self.owner, self.time)?;
        match (made.first(), self.mode) {
            (Some(path), Some(mode)) if mode != DIRECTORY => {
                unsure(format!("versions of BuildKit differ in the mode of the new directory /{path}"))
            }
            _ => Ok(made),
        }
    }

    /// Copies one path with everything below it. `components` is the path that patterns match: it is empty at the top, where an
    /// existing directory keeps its metadata. `matched` is the match result of the directory above.
    fn copy(&mut self, source: &str, components: &str, target: &str, matched: Option<&Matched>) -> Result<(), AssemblyDoubt> {
        let nested = !components.is_empty();
        let (wanted, matched) = if nested { self.wanted(components, matched)? } else { (true, Matched::default()) };
        let is_directory = self.tree.is_directory(source);
        if !wanted && !is_directory {
            return Ok(());
        }
        let seen = self.state.seen(target)?;
        if wanted {
            let merges = is_directory && seen == Seen::Directory;
            if self.action.always_replace_existing_dest_paths && seen != Seen::Nothing && !merges {
                self.state.remove(target)?;
            }
            self.make_parents(nested)?;
        }
        if is_directory {
            return self.directory(source, components, target, wanted, &matched);
        }
        let Some(item) = self.tree.get(source) else { return refused(format!("failed to stat /{source}")) };
        let node = self.node(source, item)?;
        self.state.put(target, node)
    }

    fn directory(
        &mut self,
        source: &str,
        components: &str,
        target: &str,
        wanted: bool,
        matched: &Matched,
    ) -> Result<(), AssemblyDoubt> {
        let nested = !components.is_empty();
        let made = wanted && self.directory_only(source, target, nested)?;
        self.parents.push(Parent { source: source.to_owned(), target: target.to_owned(), copied: wanted });
        let tree = self.tree;
        for name in tree.names(source) {
            let (source, components) = (joined(source, name), joined(components, name));
            self.copy(&source, &components, &joined(target, name), Some(matched))?;
        }
        self.parents.pop();
        if made || (nested && wanted) {
            return self.set_header(source, target);
        }
        if !nested {
            // A directory that existed gets the time of the copied content.
            let time = match (self.time, tree.get(source)) {
                (Some(time), _) => Some(time),
                (None, Some(item)) => item.modified.seconds()?,
                (None, None) => None,
            };
            self.state.change(target, |node| node.modified = time)?;
        }
        Ok(())
    }

    /// Returns whether patterns select a path below the top, and the match result for the paths below.
    fn wanted(&self, components: &str, above: Option<&Matched>) -> Result<(bool, Matched), AssemblyDoubt> {
        let mut matched = Matched::default();
        let mut wanted = true;
        if let Some(include) = &self.include {
            let (fits, found) =
                include.matches_below(components, above.and_then(|above| above.include.as_ref())).map_err(malformed)?;
            (wanted, matched.include) = (fits, Some(found));
        }
        if let Some(exclude) = &self.exclude {
            let (fits, found) =
                exclude.matches_below(components, above.and_then(|above| above.exclude.as_ref())).map_err(malformed)?;
            wanted &= !fits;
            matched.exclude = Some(found);
        }
        Ok((wanted, matched))
    }

    /// Creates the parent directories of a selected path. A directory that exists only gets another mode.
    fn make_parents(&mut self, nested: bool) -> Result<(), AssemblyDoubt> {
        for index in 0..self.parents.len() {
            let Parent { source, target, copied } = &self.parents[index];
            if *copied {
                continue;
            }
            let (source, target) = (source.clone(), target.clone());
            if self.directory_only(&source, &target, nested)? {
                self.set_header(&source, &target)?;
            }
            self.parents[index].copied = true;
        }
        Ok(())
    }

    /// Creates a directory, or sets the mode of an existing one. Returns whether it was created.
    fn directory_only(&mut self, source: &str, target: &str, nested: bool) -> Result<bool, AssemblyDoubt> {
        let mode = self.tree.get(source).map(|item| item.mode);
        match self.state.seen(target)? {
            Seen::Nothing => {
                self.state.make_directory(target, mode.unwrap_or(DIRECTORY), (0, 0), None)?;
                Ok(true)
            }
            Seen::Directory => {
                if nested && let Some(mode) = mode {
                    self.state.change(target, |node| node.mode = mode)?;
                }
                Ok(false)
            }
            Seen::File | Seen::Link => refused(format!("cannot copy to non-directory: /{target}")),
        }
    }

    /// Sets a directory's metadata from the source (fsutil `copyFileInfo`).
    fn set_header(&mut self, source: &str, target: &str) -> Result<(), AssemblyDoubt> {
        let Some(item) = self.tree.get(source) else {
            return unsure("hakobi does not know the metadata of the context's root directory");
        };
        let header = self.header(item)?;
        self.state.change(target, |node| *node = Node { kind: NodeKind::Directory, ..header })
    }

    fn node(&mut self, source: &str, item: &Item) -> Result<Node, AssemblyDoubt> {
        let header = self.header(item)?;
        let kind = match &item.kind {
            ItemKind::File(content) => NodeKind::File(match content.clone() {
                Content::Context { source, path, file, size, .. } => {
                    // This concerns only the named file itself, not the files in a directory.
                    Content::Context { source, path, file, size, plain: self.plain && self.parents.is_empty() }
                }
                bytes @ Content::Bytes(_) => bytes,
            }),
            ItemKind::Link(target) => {
                return Ok(Node { kind: NodeKind::Link(target.clone()), mode: 0o777, capability: None, ..header });
            }
            ItemKind::Directory | ItemKind::Special => return unsure(format!("{source} is a pipe, a socket or a device")),
        };
        let inode = item.group.as_ref().map(|group| *self.inodes.entry(group.clone()).or_insert_with(|| self.state.new_inode()));
        Ok(Node { kind, inode, ..header })
    }

    fn header(&self, item: &Item) -> Result<Node, AssemblyDoubt> {
        let owner = self.owner.unwrap_or(item.owner);
        let mode = match self.mode {
            Some(_) if item.mode & 0o7000 != 0 => {
                return unsure("versions of BuildKit differ in setuid, setgid and sticky bits");
            }
            Some(mode) => mode,
            None => item.mode,
        };
        let modified = if self.time.is_some() { self.time } else { item.modified.seconds()? };
        Ok(Node { capability: item.capability.clone(), ..Node::new(NodeKind::Directory, mode, owner, modified) })
    }
}

fn malformed(error: InvalidPattern) -> AssemblyDoubt {
    AssemblyDoubt::UnknownPaths(error.to_string())
}

/// The match result of a directory, for the paths below it.
#[derive(Default)]
struct Matched {
    include: Option<ParentMatch>,
    exclude: Option<ParentMatch>,
}

/// Cleans a path, but keeps a `/` or `/.` at the end (`backend.go:cleanPath`).
fn clean_path(path: &str) -> String {
    let cleaned = clean(&format!("/{path}"));
    let slash = if cleaned == "/" { "" } else { "/" };
    if path.ends_with("/.") {
        format!("{cleaned}{slash}.")
    } else if path.ends_with('/') {
        format!("{cleaned}{slash}")
    } else {
        cleaned
    }
}

/// Returns the last component like Go's `filepath.Base`; empty for the root.
fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn joined_name(directory: &str, name: &str) -> String {
    clean(&format!("/{directory}/{name}"))[1..].to_owned()
}
