//! Tests of the process in a mount's container, over its input and output.

mod fill;
mod list;
mod property;
mod round_trip;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::run;
use crate::domain::{Digest, spelled};
use crate::mounts::entry::{ListedEntry, MountEntry, MountEntryKind};
use crate::mounts::frame::{Decoder, encode};
use crate::mounts::protocol::{LARGEST_PAYLOAD, Reply, Request};

type Asked = (Request, Vec<u8>);
type Said = (Reply, Vec<u8>);

fn ask(request: Request) -> Asked {
    (request, Vec::new())
}

/// Runs the process with these requests. Returns its exit code and its answers.
fn converse(directories: &[&Path], requests: &[Asked]) -> (u8, Vec<Said>) {
    let input: Vec<u8> = requests.iter().flat_map(|(request, payload)| encode(request, payload).unwrap()).collect();
    with_input(directories, &input)
}

fn with_input(directories: &[&Path], input: &[u8]) -> (u8, Vec<Said>) {
    let directories: Vec<PathBuf> = directories.iter().map(|path| path.to_path_buf()).collect();
    let mut output = Vec::new();
    let code = run(&directories, std::io::Cursor::new(input.to_vec()), &mut output);
    let (mut decoder, mut said) = (Decoder::default(), Vec::new());
    decoder.push(&output);
    while let Some((reply, payload)) = decoder.next().unwrap() {
        said.push((reply, payload.to_vec()));
    }
    assert!(!decoder.is_inside_frame());
    (code, said)
}

/// A list of a mount.
struct List {
    entries: Vec<ListedEntry>,
    skipped: Vec<String>,
    at: i64,
    summary: Digest,
    newest: i64,
}

impl List {
    fn entry(&self, path: &str) -> &ListedEntry {
        self.entries.iter().find(|listed| listed.entry.path == path).unwrap_or_else(|| panic!("no {path}"))
    }

    fn number(&self, path: &str) -> u32 {
        self.entries.iter().position(|listed| listed.entry.path == path).unwrap() as u32
    }

    fn changed(&self) -> Vec<&str> {
        self.entries.iter().filter(|listed| listed.changed).map(|listed| &*listed.entry.path).collect()
    }
}

fn list(directory: &Path, since: Option<i64>) -> List {
    let (code, said) = converse(&[directory], &[ask(Request::List { mount: 0, since })]);
    assert_eq!(code, 0, "{said:?}");
    list_of(said)
}

fn list_of(said: Vec<Said>) -> List {
    let mut entries = Vec::new();
    for (reply, _) in said {
        match reply {
            Reply::Entries { entries: next, .. } => entries.extend(next),
            Reply::Listed { skipped, at, summary, newest, .. } => return List { entries, skipped, at, summary, newest },
            other => panic!("{other:?}"),
        }
    }
    panic!("the list has no end");
}

/// Lists a mount and sends all its files: the requests that fill another mount with the same content.
fn requests_to_fill(directory: &Path) -> Vec<Asked> {
    let list = list(directory, None);
    let is_file = |(_, listed): &(usize, &ListedEntry)| matches!(listed.entry.kind, MountEntryKind::File { .. });
    let files = list.entries.iter().enumerate().filter(is_file).map(|(number, _)| number as u32).collect();
    let send = [ask(Request::List { mount: 0, since: None }), ask(Request::Send { mount: 0, files })];
    let (code, said) = converse(&[directory], &send);
    assert_eq!((code, said.last().map(|(reply, _)| reply)), (0, Some(&Reply::Sent { mount: 0, gone: Vec::new() })));
    let mut requests = vec![ask(Request::Fill { mount: 0 })];
    for entries in list.entries.chunks(7) {
        let entries = entries.iter().map(|listed| listed.entry.clone()).collect();
        requests.push(ask(Request::Entries { mount: 0, entries }));
    }
    for (reply, payload) in said {
        if let Reply::Data { file, offset, .. } = reply {
            assert!(payload.len() <= LARGEST_PAYLOAD);
            requests.push((Request::Data { mount: 0, file, offset }, payload));
        }
    }
    requests.push(ask(Request::Finish { mount: 0 }));
    requests
}

/// Fills a mount. Returns the kernel's time, or the reason why not.
fn fill(directory: &Path, requests: &[Asked]) -> Result<i64, String> {
    let (code, said) = converse(&[directory], requests);
    assert_eq!((code, said.len()), (0, 1), "{said:?}");
    match &said[0].0 {
        Reply::Filled { mount: 0, at } => Ok(*at),
        Reply::Failed { mount: 0, why } => Err(why.clone()),
        other => panic!("{other:?}"),
    }
}

fn looked(directory: &Path) -> (bool, Digest, i64) {
    let (code, said) = converse(&[directory], &[ask(Request::Look { mount: 0 })]);
    match (code, said.into_iter().next()) {
        (0, Some((Reply::Looked { mount: 0, is_empty, summary, newest }, _))) => (is_empty, summary, newest),
        other => panic!("{other:?}"),
    }
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn entry(path: &str, kind: MountEntryKind) -> MountEntry {
    let mode = if kind == MountEntryKind::Directory { 0o755 } else { 0o644 };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    MountEntry { path: path.to_owned(), kind, mode, uid, gid, modified: 1_000_000_007, xattrs: BTreeMap::new() }
}

/// All that a tool can see of a tree, by path. The root has only its time.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    see(root, root, &mut BTreeMap::new(), &mut found);
    found
}

fn see(root: &Path, path: &Path, inodes: &mut BTreeMap<u64, String>, found: &mut BTreeMap<String, String>) {
    let metadata = path.symlink_metadata().unwrap();
    let relative = spelled(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
    let kind = metadata.file_type();
    let mut text = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
    if path != root {
        text += &format!(
            " {:o} {}:{} {}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.len() * u64::from(!kind.is_dir())
        );
    }
    if kind.is_symlink() {
        text += &format!(" -> {:?}", fs::read_link(path).unwrap());
    } else if kind.is_fifo() {
        text += " pipe";
    } else {
        for name in xattr::list(path).unwrap() {
            text += &format!(" {name:?}={:?}", xattr::get(path, &name).unwrap());
        }
    }
    if kind.is_file() {
        if metadata.len() < 64 << 20 {
            text += &format!(" {}", Digest::hash(&fs::read(path).unwrap()));
        }
        text += &format!(" same as {}", inodes.entry(metadata.ino()).or_insert_with(|| relative.clone()));
    }
    found.insert(relative, text);
    if kind.is_dir() {
        let mut children: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|child| child.unwrap().path()).collect();
        children.sort();
        for child in children {
            see(root, &child, inodes, found);
        }
    }
}

/// Sets both times of a file, without following a link.
fn set_time(path: &Path, nanoseconds: i64) {
    let times = super::attributes::timestamps(nanoseconds);
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
