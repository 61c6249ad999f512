//! What fails leaves the mount empty, and nothing is written elsewhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn file(size: u64) -> MountEntryKind {
    MountEntryKind::File { size }
}

fn small_tree() -> tempfile::TempDir {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("d/e/f")).unwrap();
    for number in 0..20 {
        fs::write(from.path().join(format!("d/{number}")), format!("{number}")).unwrap();
    }
    fs::hard_link(from.path().join("d/1"), from.path().join("d/e/one")).unwrap();
    symlink("d", from.path().join("link")).unwrap();
    fs::write(from.path().join("large"), vec![1; LARGEST_PAYLOAD + 1]).unwrap();
    fs::set_permissions(from.path().join("d/e"), fs::Permissions::from_mode(0o500)).unwrap();
    from
}

#[test]
fn an_end_at_any_message_leaves_the_mount_empty() {
    let from = small_tree();
    let to = tempfile::tempdir().unwrap();
    let requests = requests_to_fill(from.path());
    for end in 0..requests.len() {
        assert_eq!(converse(&[to.path()], &requests[..end]), (0, Vec::new()), "{end}");
        assert_eq!(count(to.path()), 0, "{end}");
    }
    // The same for an end inside a message, and for giving up.
    let bytes: Vec<u8> = requests.iter().flat_map(|(request, payload)| encode(request, payload).unwrap()).collect();
    for end in [1, bytes.len() / 2, bytes.len() - 1] {
        let (code, said) = with_input(&[to.path()], &bytes[..end]);
        assert!(code == 1 && matches!(said[..], [(Reply::Broken { .. }, _)]), "{end} {said:?}");
        assert_eq!(count(to.path()), 0, "{end}");
    }
    for end in 1..requests.len() {
        let mut requests = requests[..end].to_vec();
        requests.push(ask(Request::Abandon { mount: 0 }));
        assert_eq!(fill(to.path(), &requests), Err("abandoned".to_owned()), "{end}");
        assert_eq!(count(to.path()), 0, "{end}");
    }
    fill(to.path(), &requests).unwrap();
    assert_eq!(seen(from.path()), seen(to.path()));
}

#[test]
fn a_look_removes_what_a_killed_process_left() {
    let to = tempfile::tempdir().unwrap();
    let incomplete = to.path().join(".hakobi-incomplete");
    fs::create_dir_all(incomplete.join("content/a/b/c")).unwrap();
    fs::write(incomplete.join("content/a/b/file"), "").unwrap();
    fs::create_dir(incomplete.join("removing-1")).unwrap();
    fs::write(incomplete.join("removing-1/file"), "").unwrap();
    symlink("/", incomplete.join("content/root")).unwrap();
    for path in ["content/a/b", "content/a"] {
        fs::set_permissions(incomplete.join(path), fs::Permissions::from_mode(0o500)).unwrap();
    }
    assert!(looked(to.path()).0);
    assert_eq!(count(to.path()), 0);

    // Killed while the files moved: `moved` has, `waiting` has not, and `foreign` came from elsewhere.
    fs::create_dir_all(incomplete.join("content")).unwrap();
    fs::write(incomplete.join("moving"), b"moved\0waiting\0link").unwrap();
    fs::create_dir_all(to.path().join("moved/inside")).unwrap();
    fs::set_permissions(to.path().join("moved"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("/", to.path().join("link")).unwrap();
    for path in [".hakobi-incomplete/content/waiting", "waiting", "foreign"] {
        fs::write(to.path().join(path), "").unwrap();
    }
    let before = list(to.path(), None);
    assert_eq!(before.entries.len(), 6, "a list has no incomplete files");
    assert!(!looked(to.path()).0);
    assert_eq!(seen(to.path()).keys().collect::<Vec<_>>(), ["", "foreign", "waiting"]);
}

#[test]
fn a_mount_that_is_not_empty_stays_as_it_is() {
    let from = small_tree();
    let to = tempfile::tempdir().unwrap();
    let requests = requests_to_fill(from.path());
    fs::write(to.path().join("mine"), "x").unwrap();
    assert!(fill(to.path(), &requests).unwrap_err().contains("not empty"));
    assert_eq!(seen(to.path()).keys().collect::<Vec<_>>(), ["", "mine"]);
    fs::remove_file(to.path().join("mine")).unwrap();

    // A step writes into the mount while hakobi fills it.
    let (input, mut ask_it) = std::io::pipe().unwrap();
    let (mut its_answer, output) = std::io::pipe().unwrap();
    let directories = vec![to.path().to_path_buf()];
    let process = std::thread::spawn(move || run(&directories, input, output));
    let mut tell = |(request, payload): &Asked| {
        std::io::Write::write_all(&mut ask_it, &encode(request, payload).unwrap()).unwrap();
    };
    let (finish, before) = requests.split_last().unwrap();
    before.iter().for_each(&mut tell);
    while !to.path().join(".hakobi-incomplete/content/large").exists() {
        std::thread::yield_now();
    }
    // Another process neither fills the mount nor removes the files.
    assert!(!looked(to.path()).0);
    assert!(fill(to.path(), &requests).unwrap_err().contains("another process fills it"));
    fs::write(to.path().join("mine"), "x").unwrap();
    tell(finish);
    let reply = crate::mounts::frame::read_frame(&mut its_answer, &mut Vec::new()).unwrap();
    assert!(matches!(&reply, Some(Reply::Failed { why, .. }) if why.contains("another process has written")), "{reply:?}");
    drop(ask_it);
    assert_eq!(process.join().unwrap(), 0);
    assert_eq!(seen(to.path()).keys().collect::<Vec<_>>(), ["", "mine"]);
}

/// Fills with these entries after the root, and this data. Returns the error, with which the mount is empty.
fn refused(entries: Vec<MountEntry>, data: &[(u32, u64, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mount");
    fs::create_dir(&mount).unwrap();
    fs::write(folder.path().join("outside"), "untouched").unwrap();
    let mut requests = vec![ask(Request::Fill { mount: 0 })];
    let all = std::iter::once(entry("", MountEntryKind::Directory)).chain(entries).collect();
    requests.push(ask(Request::Entries { mount: 0, entries: all }));
    for (file, offset, text) in data {
        requests.push((Request::Data { mount: 0, file: *file, offset: *offset }, text.as_bytes().to_vec()));
    }
    requests.push(ask(Request::Finish { mount: 0 }));
    let why = fill(&mount, &requests).expect_err("refused");
    assert_eq!((count(&mount), count(folder.path())), (0, 2), "{why}");
    assert_eq!(fs::read_to_string(folder.path().join("outside")).unwrap(), "untouched", "{why}");
    why
}

#[test]
fn hostile_entries_write_nothing_outside() {
    let invalid = ["..", "../x", "/x", "//x", "a//x", "a/", "./x", ".", "a/../../x", "a/..", "x\0y", "", ".hakobi-incomplete"];
    for path in invalid {
        for kind in [file(0), MountEntryKind::Directory, MountEntryKind::Link { target: "/".to_owned() }, MountEntryKind::Pipe] {
            refused(vec![entry("a", MountEntryKind::Directory), entry(path, kind)], &[]);
        }
        refused(vec![entry("a", file(1)), entry("b", MountEntryKind::HardLink { of: path.to_owned() })], &[(1, 0, "x")]);
    }
    let link = || entry("l", MountEntryKind::Link { target: "..".to_owned() });
    refused(vec![link(), entry("l/x", file(1))], &[(2, 0, "x")]);
    refused(vec![link(), entry("l", file(7))], &[(2, 0, "written")]);
    refused(vec![link(), entry("l", file(9))], &[(2, 0, "in"), (2, 2, "parts"), (2, 7, "..")]);
    refused(vec![link(), entry("h", MountEntryKind::HardLink { of: "l/outside".to_owned() })], &[]);
    refused(vec![entry("f", file(1)), entry("f/x", file(1))], &[(1, 0, "x")]);
    refused(vec![entry("missing/x", file(0))], &[]);
    refused(vec![entry("x", file(0)), entry("x", file(0))], &[]);
    refused(vec![entry("x", file(0)), entry("x", MountEntryKind::Directory)], &[]);
    refused(vec![entry("x", MountEntryKind::Directory), entry("x", MountEntryKind::Directory)], &[]);
    refused(vec![entry("d", MountEntryKind::Directory), entry("h", MountEntryKind::HardLink { of: "d".to_owned() })], &[]);
    refused(vec![entry("x", file(u64::MAX))], &[(1, u64::MAX, "x")]);
    refused(vec![entry("x", file(u64::MAX))], &[]);
}

#[test]
fn data_that_fits_no_file_is_refused() {
    for (number, offset, text) in
        [(0, 0, "x"), (1, 0, "xyz"), (1, 2, "x"), (1, u64::MAX, "x"), (2, 0, "x"), (3, 0, "x"), (9, 0, "")]
    {
        let entries = vec![entry("x", file(2)), entry("d", MountEntryKind::Directory)];
        let why = refused(entries, &[(number, offset, text), (1, 0, "ok")]);
        assert!(why.starts_with("failed to write "), "{why}");
    }
    let why = refused(vec![entry("x", file(2))], &[(1, 0, "ok"), (1, 0, "ok")]);
    assert_eq!(why, "failed to write x: it is no incomplete file");
}

#[test]
fn a_broken_conversation_ends_the_process() {
    let mount = tempfile::tempdir().unwrap();
    let data = || (Request::Data { mount: 0, file: 0, offset: 0 }, b"x".to_vec());
    let broken = [
        vec![ask(Request::Look { mount: 1 })],
        vec![ask(Request::Entries { mount: 0, entries: Vec::new() })],
        vec![data()],
        vec![ask(Request::Finish { mount: 0 })],
        vec![ask(Request::Abandon { mount: 0 })],
        vec![ask(Request::Fill { mount: 0 }), ask(Request::Fill { mount: 0 })],
        vec![ask(Request::Send { mount: 0, files: Vec::new() })],
        vec![ask(Request::List { mount: 0, since: None }), ask(Request::Send { mount: 0, files: vec![0] })],
        vec![ask(Request::List { mount: 0, since: None }), ask(Request::Send { mount: 0, files: vec![9] })],
    ];
    for requests in broken {
        let (code, said) = converse(&[mount.path()], &requests);
        assert!(code == 1 && matches!(said.last(), Some((Reply::Broken { .. }, _))), "{requests:?} {said:?}");
        assert_eq!(count(mount.path()), 0, "{requests:?}");
    }
    for input in [&b"\xff\xff\xff\xff\0\0\0\0"[..], b"\0\0\0\x02\0\0\0\0{}", b"\0\0"] {
        let (code, said) = with_input(&[mount.path()], input);
        assert!(code == 1 && matches!(said[..], [(Reply::Broken { .. }, _)]), "{input:?} {said:?}");
    }
    let missing = mount.path().join("missing");
    assert!(matches!(&with_input(&[&missing], b""), (1, said) if matches!(said[..], [(Reply::Broken { .. }, _)])));
    assert_eq!(with_input(&[mount.path()], b""), (0, Vec::new()));
    // Only the root is a valid mount: an empty one.
    let requests = [Request::Fill { mount: 0 }, Request::Finish { mount: 0 }].map(ask);
    assert!(fill(mount.path(), &requests).unwrap_err().contains("no entries"));
    let root = Request::Entries { mount: 0, entries: vec![entry("", MountEntryKind::Directory)] };
    fill(mount.path(), &[ask(Request::Fill { mount: 0 }), ask(root), ask(Request::Finish { mount: 0 })]).unwrap();
    assert_eq!(count(mount.path()), 0);
}
