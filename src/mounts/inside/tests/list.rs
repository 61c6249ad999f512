//! What a list says of changes, and which files can be sent.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use super::*;

/// A filled mount with files `a/0` to `a/9`, `b/0` to `b/9` and `c/d/file`, and the time when it was filled.
fn filled() -> (tempfile::TempDir, i64) {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in ["a", "b", "c/d"] {
        fs::create_dir_all(from.path().join(directory)).unwrap();
    }
    for number in 0..10 {
        fs::write(from.path().join(format!("a/{number}")), "old").unwrap();
        fs::write(from.path().join(format!("b/{number}")), "old").unwrap();
    }
    fs::write(from.path().join("c/d/file"), "old").unwrap();
    let at = fill(to.path(), &requests_to_fill(from.path())).unwrap();
    (to, at)
}

#[test]
fn changes_are_seen_however_they_are_made() {
    let (mount, at) = filled();
    let path = |name: &str| mount.path().join(name);
    assert_eq!(list(mount.path(), Some(at)).changed(), [""; 0]);
    assert_eq!(list(mount.path(), None).changed().len(), 26);
    let time = path("a/0").metadata().unwrap().modified().unwrap();

    // The content, with the old size and the old time.
    File::options().write(true).open(path("a/0")).unwrap().write_all_at(b"new", 0).unwrap();
    File::options().write(true).open(path("a/0")).unwrap().set_modified(time).unwrap();
    fs::set_permissions(path("a/1"), fs::Permissions::from_mode(0o600)).unwrap();
    set_time(&path("a/2"), 5);
    fs::rename(path("a/3"), path("b/3")).unwrap();
    fs::hard_link(path("a/4"), path("c/four")).unwrap();
    let found = list(mount.path(), Some(at));
    assert_eq!(found.changed(), ["a", "a/0", "a/1", "a/2", "a/4", "b", "b/3", "c", "c/four"]);
    assert_eq!(found.entry("c/four").entry.kind, MountEntryKind::HardLink { of: "a/4".to_owned() });
    assert!(found.entries.iter().all(|listed| !listed.changed || listed.used));

    // The next list compares with this one.
    fs::write(path("b/5"), "x").unwrap();
    let next = list(mount.path(), Some(found.at));
    assert!(next.entry("b/5").changed && !next.entry("b/6").changed);
    assert!(next.at >= found.at && next.newest >= found.newest && next.summary != found.summary);
}

#[test]
fn all_files_of_a_moved_directory_have_changed() {
    let (mount, at) = filled();
    let path = |name: &str| mount.path().join(name);
    // The two directories take each other's place. Nothing in them changes.
    fs::rename(path("a"), path("t")).unwrap();
    fs::rename(path("b"), path("a")).unwrap();
    fs::rename(path("t"), path("b")).unwrap();
    let found = list(mount.path(), Some(at));
    assert!(found.entry("a/5").changed && found.entry("b/5").changed && !found.entry("c/d/file").changed);
}

#[test]
fn a_clock_that_was_set_back_hides_no_change() {
    let (mount, _) = filled();
    let later = i64::MAX - 5;
    assert_eq!(list(mount.path(), Some(later)).changed().len(), 26);
}

#[test]
fn read_files_are_used() {
    let (mount, at) = filled();
    // A test cannot choose the file system's options: without times of access, nothing is known.
    fs::read(mount.path().join("a/1")).unwrap();
    let is_known = list(mount.path(), Some(at)).entry("a/1").used;
    for number in [3, 4] {
        fs::read(mount.path().join(format!("b/{number}"))).unwrap();
    }
    let found = list(mount.path(), Some(at));
    let used: Vec<&str> = found.entries.iter().filter(|listed| listed.used).map(|listed| &*listed.entry.path).collect();
    let files: Vec<&str> = used.into_iter().filter(|path| path.contains('/') && *path != "c/d").collect();
    assert!(files == ["a/1", "b/3", "b/4"] || !is_known, "{files:?}");
    assert_eq!(found.changed(), [""; 0]);
    // hakobi's own reading counts for nothing.
    let numbers = vec![found.number("a/5"), found.number("b/5")];
    let requests = [Request::List { mount: 0, since: Some(at) }, Request::Send { mount: 0, files: numbers }].map(ask);
    assert_eq!(converse(&[mount.path()], &requests).0, 0);
    let after = list(mount.path(), Some(at));
    assert!(!after.entry("a/5").used && !after.entry("b/5").used);
}

#[test]
fn the_order_is_that_of_components() {
    let mount = tempfile::tempdir().unwrap();
    for directory in ["a", "a-b", "a.b"] {
        fs::create_dir(mount.path().join(directory)).unwrap();
        fs::write(mount.path().join(directory).join("x"), "").unwrap();
    }
    fs::write(mount.path().join("a/ä"), "").unwrap();
    let socket = UnixListener::bind(mount.path().join("a/socket")).unwrap();
    let found = list(mount.path(), None);
    let paths: Vec<&str> = found.entries.iter().map(|listed| &*listed.entry.path).collect();
    assert_eq!(paths, ["", "a", "a/x", "a/ä", "a-b", "a-b/x", "a.b", "a.b/x"]);
    assert_eq!(found.skipped, ["a/socket"]);
    assert_eq!(found.summary, crate::mounts::summary(found.entries.iter().map(|listed| &listed.entry)));
    drop(socket);
}

#[test]
fn an_empty_mount_has_no_newest_file() {
    let mount = tempfile::tempdir().unwrap();
    assert!(matches!(looked(mount.path()), (true, _, 0)));
    let found = list(mount.path(), None);
    assert_eq!((found.entries.len(), found.newest), (1, 0));
    fs::write(mount.path().join("x"), "").unwrap();
    set_time(&mount.path().join("x"), 5);
    set_time(mount.path(), 9);
    assert!(matches!(looked(mount.path()), (false, _, 9)));
}

#[test]
fn long_lists_have_many_messages() {
    let mount = tempfile::tempdir().unwrap();
    for number in 0..2500 {
        fs::write(mount.path().join(format!("{number}")), "").unwrap();
    }
    let (_, said) = converse(&[mount.path()], &[ask(Request::List { mount: 0, since: None })]);
    let sizes: Vec<usize> = said
        .iter()
        .filter_map(|(reply, _)| if let Reply::Entries { entries, .. } = reply { Some(entries.len()) } else { None })
        .collect();
    assert_eq!(sizes, [1000, 1000, 501]);
}

#[test]
fn files_that_change_after_the_list_are_gone() {
    let (mount, _) = filled();
    // More directories than the process keeps open.
    for number in 0..100 {
        fs::create_dir(mount.path().join(format!("z{number}"))).unwrap();
    }
    let found = list(mount.path(), None);
    let files: Vec<u32> = ["a/0", "a/1", "a/2", "a/3", "a/4", "c/d/file"].map(|path| found.number(path)).to_vec();
    let (input, mut ask_it) = std::io::pipe().unwrap();
    let (mut its_answer, output) = std::io::pipe().unwrap();
    let directories = vec![mount.path().to_path_buf()];
    let process = std::thread::spawn(move || run(&directories, input, output));
    let mut payload = Vec::new();
    let mut next = || crate::mounts::frame::read_frame::<Reply>(&mut its_answer, &mut payload).unwrap().unwrap();
    ask_it.write_all(&encode(&Request::List { mount: 0, since: None }, &[]).unwrap()).unwrap();
    while !matches!(next(), Reply::Listed { .. }) {}
    let path = |name: &str| mount.path().join(name);
    File::options().append(true).open(path("a/0")).unwrap().write_all(b"more").unwrap();
    fs::remove_file(path("a/1")).unwrap();
    fs::remove_file(path("a/2")).unwrap();
    std::os::unix::fs::symlink("3", path("a/2")).unwrap();
    // The directory is a link to another one now.
    fs::rename(path("c"), path("moved")).unwrap();
    std::os::unix::fs::symlink("moved", path("c")).unwrap();
    ask_it.write_all(&encode(&Request::Send { mount: 0, files: files.clone() }, &[]).unwrap()).unwrap();
    let mut sent = Vec::new();
    let gone = loop {
        match next() {
            Reply::Data { file, .. } => sent.push(file),
            Reply::Sent { gone, .. } => break gone,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((sent, gone), (vec![files[3], files[4]], vec![files[0], files[1], files[2], files[5]]));
    drop(ask_it);
    assert_eq!(process.join().unwrap(), 0);
}
