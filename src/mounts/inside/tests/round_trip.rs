//! A mount's content comes back as it was.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::thread;

use super::*;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A tree with everything that a mount can have.
fn make_rich(root: &Path) {
    for directory in ["a/deep/er", "b", "empty", "read-only", "sticky", "names"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("a/file"), "content").unwrap();
    fs::write(root.join("a/deep/er/large"), vec![7; 3 * LARGEST_PAYLOAD + 5]).unwrap();
    fs::write(root.join("b/nothing"), "").unwrap();
    fs::write(root.join("b/secret"), "x").unwrap();
    fs::write(root.join("b/setuid"), "#!").unwrap();
    fs::write(root.join("read-only/inside"), "locked").unwrap();
    fs::hard_link(root.join("a/file"), root.join("b/another-name")).unwrap();
    fs::hard_link(root.join("a/deep/er/large"), root.join("a/deep/same")).unwrap();
    for (name, target) in [("relative", "../a/file"), ("broken", "/nowhere/at all"), ("loop", "loop")] {
        symlink(target, root.join("b").join(name)).unwrap();
    }
    symlink(OsStr::from_bytes(b"caf\xe9"), root.join("names").join(OsStr::from_bytes(b"\xff\xfe link"))).unwrap();
    for name in [&b"caf\xe9"[..], b"\xf3\xb0\x82\x80", b"new\nline", b"quote\"\\", "ä 日本".as_bytes(), b".hakobi-incomplete"]
    {
        fs::write(root.join("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let sparse = File::create(root.join("a/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    for (offset, text) in [(0, "start"), (500 << 20, "middle"), ((1 << 30) - 3, "end")] {
        sparse.write_all_at(text.as_bytes(), offset).unwrap();
    }
    let hole = File::create(root.join("a/hole")).unwrap();
    hole.set_len(10_000_000).unwrap();
    // Not every file system has them.
    for (path, name, value) in [("a/file", "user.note", &b"\0\xff"[..]), ("b", "user.on-directory", b""), ("", "user.root", b"r")]
    {
        let _ = xattr::set(root.join(path), name, value);
    }
    if is_root() {
        chown(root.join("a/file"), Some(1234), Some(4321)).unwrap();
        chown(root.join("b/setuid"), Some(5), Some(6)).unwrap();
        chown(root.join("read-only"), Some(7), None).unwrap();
        lchown(root.join("b/relative"), Some(8), Some(9)).unwrap();
        lchown(root.join("pipe"), Some(10), None).unwrap();
        // cap_net_raw+ep, which a change of the owner would remove.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = xattr::set(root.join("b/secret"), "security.capability", &capability);
        chown(root.join("b/secret"), Some(11), None).unwrap();
        let _ = xattr::set(root.join("b/secret"), "security.capability", &capability);
    }
    mode(&root.join("b/secret"), 0o400);
    mode(&root.join("b/setuid"), 0o6755);
    // Only root can send a file that its owner cannot read.
    mode(&root.join("b/nothing"), if is_root() { 0o007 } else { 0o407 });
    mode(&root.join("sticky"), 0o3777);
    mode(&root.join("pipe"), 0o622);
    let mut time = 1_700_000_000_123_456_789;
    for path in
        ["a/file", "a/deep/er/large", "a/deep/er", "a/deep", "a", "b/relative", "b", "pipe", "read-only/inside", "read-only"]
    {
        time += 1_000_000_001;
        set_time(&root.join(path), time);
    }
    set_time(&root.join("empty"), -5);
    set_time(&root.join("sticky"), 2_000_000_000_000_000_001);
    set_time(root, 1_111_111_111_111_111_111);
    mode(&root.join("read-only"), 0o555);
}

/// Lets the directory for tests be removed without root's rights.
fn release(root: &Path) {
    let _ = fs::set_permissions(root.join("read-only"), Permissions::from_mode(0o755));
}

#[test]
fn everything_comes_back() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_rich(from.path());
    mode(to.path(), 0o1751);
    let owner = to.path().metadata().unwrap();
    let requests = requests_to_fill(from.path());
    let at = fill(to.path(), &requests).unwrap();
    let (expected, found) = (seen(from.path()), seen(to.path()));
    for (path, text) in &expected {
        assert_eq!(found.get(path), Some(text), "{path}");
    }
    assert_eq!(found.len(), expected.len());
    let root = to.path().metadata().unwrap();
    assert_eq!((root.mode(), root.uid()), (owner.mode(), owner.uid()), "the root's mode is BuildKit's");
    for path in ["a/sparse", "a/hole"] {
        let (one, other) = (from.path().join(path).metadata().unwrap(), to.path().join(path).metadata().unwrap());
        assert!(other.blocks() <= one.blocks() && other.blocks() < 1000, "{path} has no holes");
    }
    for offset in [0, 500 << 20, (1 << 30) - 3] {
        let mut bytes = [[0; 3]; 2];
        for (root, bytes) in [&from, &to].iter().zip(&mut bytes) {
            File::open(root.path().join("a/sparse")).unwrap().read_exact_at(bytes, offset).unwrap();
        }
        assert_eq!(bytes[0], bytes[1]);
    }
    // All of it is as hakobi left it, and the next list says so.
    let (source, again) = (list(from.path(), None), list(to.path(), Some(at)));
    assert_eq!(again.changed(), [""; 0]);
    assert_eq!((&source.summary, source.newest), (&again.summary, again.newest));
    assert_eq!(looked(to.path()), (false, again.summary, again.newest));
    release(from.path());
    release(to.path());
}

#[test]
fn parts_arrive_in_any_order() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_rich(from.path());
    // More large files than the process keeps open.
    for number in 0..100 {
        fs::write(from.path().join(format!("a/{number}")), vec![number; 9000]).unwrap();
        set_time(&from.path().join(format!("a/{number}")), i64::from(number) + 1);
    }
    let mut requests = requests_to_fill(from.path());
    let is_data = |asked: &Asked| matches!(asked.0, Request::Data { .. });
    let first = requests.iter().position(is_data).unwrap();
    let end = requests.len() - 1;
    let mut parts = Vec::new();
    for (request, payload) in requests.drain(first..end) {
        let Request::Data { mount, file, offset } = request else { panic!("{request:?}") };
        for (number, part) in payload.chunks(4000).enumerate() {
            parts.push((number, (Request::Data { mount, file, offset: offset + number as u64 * 4000 }, part.to_vec())));
        }
    }
    // The second part of all files, then their third one, and the first ones last.
    parts.sort_by_key(|(number, _)| number.wrapping_sub(1));
    requests.splice(first..first, parts.into_iter().map(|(_, part)| part));
    fill(to.path(), &requests).unwrap();
    assert_eq!(seen(from.path()), seen(to.path()));
    release(from.path());
    release(to.path());
}

#[test]
fn it_speaks_over_pipes_and_serves_several_mounts() {
    let mounts = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    fs::write(mounts[1].path().join("file"), "x").unwrap();
    let (input, mut ask_it) = std::io::pipe().unwrap();
    let (mut its_answer, output) = std::io::pipe().unwrap();
    let directories: Vec<PathBuf> = mounts.iter().map(|mount| mount.path().to_path_buf()).collect();
    let process = thread::spawn(move || run(&directories, input, output));
    let (mut payload, mut is_empty) = (Vec::new(), Vec::new());
    for mount in [0, 1, 0] {
        std::io::Write::write_all(&mut ask_it, &encode(&Request::Look { mount }, &[]).unwrap()).unwrap();
        match crate::mounts::frame::read_frame(&mut its_answer, &mut payload).unwrap() {
            Some(Reply::Looked { mount: found, is_empty: found_empty, .. }) => is_empty.push((found, found_empty)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(is_empty, [(0, true), (1, false), (0, true)]);
    drop(ask_it);
    assert_eq!(process.join().unwrap(), 0);
}
