//! The rules of file operations, one by one, each with its result.

mod copies;
mod layers;
mod others;

use crate::build_context::Entry;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::build_context::{Selection, Tree as ContextTree, walk};
use crate::domain::Digest;
use crate::layers::LayerIndex;
use crate::layers::entry::{Kind, PathEntry};

const NOW: u64 = 1_700_000_000;
const THEN: u64 = 1_600_000_000;

/// A context in which each file has a fixed time.
struct Context {
    folder: TempDir,
    entries: Vec<Entry>,
}

impl Context {
    /// Makes a context of lines: `path`, `path/`, `path -> target`, `path = other` (a hard link), `path:mode`, `path=text`.
    fn of(lines: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for line in lines {
            let (line, mode) = match line.rsplit_once(':') {
                Some((line, mode)) => (line, u32::from_str_radix(mode, 8).unwrap()),
                None => (*line, if line.ends_with('/') { 0o755 } else { 0o644 }),
            };
            let path = line.split([' ', '=']).next().unwrap();
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            if let Some((_, target)) = line.split_once(" -> ") {
                symlink(target, at(path)).unwrap();
                continue;
            } else if let Some((_, other)) = line.split_once(" = ") {
                fs::hard_link(at(other), at(path)).unwrap();
                continue;
            } else if path.ends_with('/') {
                fs::create_dir_all(at(path)).unwrap();
            } else {
                fs::write(at(path), line.split_once('=').map_or(path, |(_, text)| text)).unwrap();
            }
            fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        let mut entries = Vec::new();
        walk(folder.path(), &Selection::default(), &mut |entry| {
            entries.push(Entry { modified: i64::try_from(THEN).unwrap() * 1_000_000_000 + 7, ..entry });
            true
        })
        .unwrap();
        Self { folder, entries }
    }

    fn source(&self) -> Source<'_> {
        Source::Files(Files { root: self.folder.path(), entries: &self.entries })
    }
}

/// Makes a state of lines: `path`, `path/`, `path/:mode:user:group`, `path -> target`, `path!` of another kind, `path=text`.
fn base(lines: &[&str]) -> PathIndex {
    let mut layer = LayerIndex::default();
    for line in lines {
        let mut fields = line.split(':');
        let name = fields.next().unwrap();
        let mut number = |radix| fields.next().map(|field| u32::from_str_radix(field, radix).unwrap());
        if let Some((path, target)) = line.split_once(" -> ") {
            layer.insert(path, PathEntry::plain(Kind::Link(target.to_owned())));
        } else if let Some((path, text)) = line.split_once('=') {
            layer.insert(path, PathEntry { text: Some(text.to_owned()), ..PathEntry::plain(Kind::File) });
        } else if let Some(path) = name.strip_suffix('/') {
            let mode = number(8).unwrap_or(0o755);
            layer.insert(path, PathEntry::directory(mode, (number(10).unwrap_or(0), number(10).unwrap_or(0)), 7));
        } else if let Some(path) = name.strip_suffix('!') {
            layer.insert(path, PathEntry::plain(Kind::Other));
        } else {
            layer.insert(name, PathEntry::plain(Kind::File));
        }
    }
    PathIndex::from_layers([&layer])
}

/// Returns a copy like the Dockerfile frontend's.
fn copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

fn named(user: Option<&str>, group: Option<&str>) -> Option<pb::ChownOpt> {
    let option = |name: Option<&str>| {
        let user = match name?.parse() {
            Ok(id) => pb::user_opt::User::ById(id),
            Err(_) => pb::user_opt::User::ByName(pb::NamedUserOpt { name: name?.to_owned(), input: 0 }),
        };
        Some(pb::UserOpt { user: Some(user) })
    };
    Some(pb::ChownOpt { user: option(user), group: option(group) })
}

/// Returns an operation with these actions in sequence: input 0 is the state below, 1 the source.
fn op(actions: Vec<pb::file_action::Action>) -> pb::Op {
    let last = actions.len() - 1;
    let actions = actions.into_iter().enumerate().map(|(number, action)| pb::FileAction {
        input: if number == 0 { 0 } else { i64::try_from(number + 1).unwrap() },
        secondary_input: if matches!(action, pb::file_action::Action::Copy(_)) { 1 } else { -1 },
        output: if number == last { 0 } else { -1 },
        action: Some(action),
    });
    let file = pb::FileOp { actions: actions.collect() };
    pb::Op { inputs: vec![pb::Input::default(); 2], op: Some(pb::op::Op::File(file)), ..pb::Op::default() }
}

fn copies(copies: Vec<pb::FileActionCopy>) -> pb::Op {
    op(copies.into_iter().map(pb::file_action::Action::Copy).collect())
}

fn assembled(op: &pb::Op, base: &PathIndex, context: &Context) -> Result<AssembledLayer, AssemblyDoubt> {
    assemble_layer(op, base, &|input| (input == 1).then(|| context.source()))
}

/// Returns one line for each entry: `path mode user:group what @time`, without the time if it is the file's own.
fn lines(assembled: &AssembledLayer) -> Vec<String> {
    let line = |(path, entry): (&str, &AssembledEntry)| {
        let what = match &entry.kind {
            AssembledKind::File(Content::Context { path, .. }) => format!("<{path}"),
            AssembledKind::File(Content::Bytes(bytes)) => format!("={}", String::from_utf8_lossy(bytes)),
            AssembledKind::HardLink(first) => format!("= {first}"),
            AssembledKind::Directory => "/".to_owned(),
            AssembledKind::Link(target) => format!("-> {target}"),
            AssembledKind::Whiteout => return format!("{path} gone"),
        };
        let time = match entry.modified {
            Some(THEN) => String::new(),
            Some(time) => format!(" @{time}"),
            None => " @now".to_owned(),
        };
        format!("{path} {:o} {}:{} {what}{time}", entry.mode, entry.owner.0, entry.owner.1)
    };
    assembled.entries().map(line).collect()
}

/// Asserts the result: the lines, or `?` for unsure and `!` for refused, with a part of the message.
fn expect(op: &pb::Op, below: &PathIndex, context: &Context, expected: &[&str]) {
    match (assembled(op, below, context), expected) {
        (Err(AssemblyDoubt::UnknownPaths(reason)), [first]) if first.starts_with('?') => {
            assert!(reason.contains(&first[1..]), "{reason}")
        }
        (Err(AssemblyDoubt::Refused(reason)), [first]) if first.starts_with('!') => {
            assert!(reason.contains(&first[1..]), "{reason}")
        }
        (Ok(assembled), expected) => {
            assert_eq!(lines(&assembled), expected, "{op:?}");
            checks(&assembled, context);
        }
        (Err(other), expected) => panic!("{other:?}, not {expected:?} of {op:?}"),
    }
}

/// Checks what is true of every layer: its tar is always the same and can be read back.
fn checks(assembled: &AssembledLayer, context: &Context) {
    let mut hashed = BTreeMap::new();
    let tar = tar_of(assembled, &mut hashed);
    assert_eq!(tar, tar_of(assembled, &mut BTreeMap::new()));
    assert_eq!(
        LayerIndex::from_tar(&tar[..]).unwrap().entries,
        assembled.index(NOW, &|_, _| None).entries.into_iter().map(without_text).collect()
    );
    assert_eq!(LayerIndex::from_tar(&tar[..]).unwrap().removed, assembled.index(NOW, &|_, _| None).removed);
    for (path, digest) in &hashed {
        assert_eq!(*digest, Digest::hash(&fs::read(context.folder.path().join(path)).unwrap()));
    }
    let tree = ContextTree::from_tar(&tar[..]).unwrap();
    assert_eq!(assembled.differs(&tree, &|_, path| hashed.get(path).cloned()), None);
}

fn without_text((path, met): (String, PathEntry)) -> (String, PathEntry) {
    (path, PathEntry { text: None, ..met })
}

fn tar_of(assembled: &AssembledLayer, hashed: &mut BTreeMap<String, Digest>) -> Vec<u8> {
    let mut out = Vec::new();
    assembled
        .write_tar(&mut out, NOW, &mut |_, path, digest| {
            hashed.insert(path.to_owned(), digest.clone());
        })
        .unwrap();
    out
}
