//! How layers combine, and what the index contains of a tar.

use proptest::prelude::*;

use super::*;

fn layer(entries: &[(&str, PathEntry)]) -> LayerIndex {
    let mut layer = LayerIndex::default();
    entries.iter().for_each(|(path, met)| layer.insert(path, met.clone()));
    layer
}

fn file() -> PathEntry {
    PathEntry::plain(Kind::File)
}

fn link(target: &str) -> PathEntry {
    PathEntry::plain(Kind::Link(target.to_owned()))
}

fn directory() -> PathEntry {
    PathEntry::directory(0o755, (0, 0), 7)
}

#[test]
fn layers_lie_over_each_other() {
    let lower = layer(&[
        ("a", directory()),
        ("a/b", file()),
        ("a-b", file()),
        ("a/c", directory()),
        ("a/c/d", file()),
        ("e", directory()),
        ("e/f", file()),
        ("g", file()),
    ]);
    let mut upper =
        layer(&[("a", PathEntry::directory(0o700, (1, 2), 9)), ("a/c", link("/e")), ("e", directory()), ("g", directory())]);
    upper.removed.insert("a/b".to_owned());
    upper.opaque.insert("e".to_owned());
    let index = PathIndex::from_layers([&lower, &upper]);
    let paths: Vec<&str> = index.below("").map(|(path, _)| path).collect();
    assert_eq!(paths, ["a", "a-b", "a/c", "e", "g"]);
    assert_eq!(index.get("/a"), Some(&PathEntry::directory(0o700, (1, 2), 9)));
    assert_eq!(index.below("a").count(), 1);
    assert_eq!(index.get("g"), Some(&directory()));
}

#[test]
fn an_implied_directory_above_another_is_not_sure() {
    let lower = layer(&[("var", directory()), ("tmp", PathEntry::directory(0o1777, (0, 0), 1))]);
    let upper = layer(&[("var/x", file()), ("tmp/x", file()), ("new/x", file())]);
    let index = PathIndex::from_layers([&lower, &upper]);
    assert_eq!(index.get("var"), Some(&directory()), "either way it has the same header");
    assert!(index.get("tmp").unwrap().implied);
    assert!(!index.get("new").unwrap().implied);
}

#[test]
fn links_are_followed_within_the_root() {
    let index = PathIndex::from_layers([&layer(&[
        ("usr/bin", directory()),
        ("bin", link("usr/bin")),
        ("abs", link("/usr")),
        ("out", link("../../../usr/../abs/bin")),
        ("loop", link("loop")),
    ])]);
    let resolved = |path: &str| index.walk(path).map(|(at, _)| at);
    assert_eq!(resolved("/bin/x/y").as_deref(), Some("usr/bin/x/y"));
    assert_eq!(resolved("out/./z").as_deref(), Some("usr/bin/z"));
    assert_eq!(index.walk("out"), Some(("usr/bin".to_owned(), vec!["out".to_owned(), "abs".to_owned()])));
    assert_eq!(resolved("loop/x"), None);
    assert_eq!(resolved("/").as_deref(), Some(""));
}

#[test]
fn a_tar_is_read_and_kept_in_little() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, target: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(5);
        header.set_size(bytes.len() as u64);
        match target {
            Some(target) => tar.append_link(&mut header, path, target).unwrap(),
            None => tar.append_data(&mut header, path, bytes).unwrap(),
        }
    };
    put("./etc/", tar::EntryType::Directory, 0o750, None, b"");
    put("./etc/passwd", tar::EntryType::Regular, 0o644, None, b"root:x:0:0::/:/bin/sh\n");
    put("etc/mtab", tar::EntryType::Symlink, 0o777, Some("/proc/mounts"), b"");
    put("etc/hard", tar::EntryType::Link, 0o644, Some("etc/passwd"), b"");
    put("etc/.wh.gone", tar::EntryType::Regular, 0, None, b"");
    put("srv/.wh..wh..opq", tar::EntryType::Regular, 0, None, b"");
    for i in 0..20_000 {
        put(&format!("usr/lib/python3/dist-packages/package{}/module{i}.py", i / 20), tar::EntryType::Regular, 0o644, None, b"");
    }
    let bytes = tar.into_inner().unwrap();
    let index = LayerIndex::from_tar(&bytes[..]).unwrap();
    assert_eq!(index.entries["etc"], PathEntry::directory(0o750, (3, 4), 5));
    assert_eq!(index.entries["etc/passwd"].text.as_deref(), Some("root:x:0:0::/:/bin/sh\n"));
    assert_eq!(index.entries["etc/mtab"].kind, Kind::Link("/proc/mounts".to_owned()));
    assert_eq!(index.entries["etc/hard"].kind, Kind::File);
    assert!(index.entries["usr/lib"].implied);
    assert_eq!((index.removed.len(), index.opaque.len()), (1, 1));
    let json = serde_json::to_vec(&index).unwrap();
    assert_eq!(serde_json::from_slice::<LayerIndex>(&json).unwrap(), index);
    let mut archive_paths = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut archive_paths, &json).unwrap();
    let archive_paths = archive_paths.finish().unwrap().len();
    assert!(archive_paths < 300_000, "{archive_paths} bytes for 20,000 files");
}

fn entries() -> impl Strategy<Value = PathEntry> {
    let number = 0..2_000_000_000_u64;
    prop_oneof![
        Just(file()),
        Just(PathEntry::plain(Kind::Other)),
        "[a-z./é]{1,12}".prop_map(|target| link(&target)),
        (0..0o7777_u32, any::<u32>(), any::<u32>(), number).prop_map(|(mode, uid, gid, time)| PathEntry::directory(
            mode,
            (uid, gid),
            time
        )),
        "[a-z:0-9\n]{0,40}".prop_map(|text| PathEntry { text: Some(text), ..file() }),
    ]
}

fn indexes() -> impl Strategy<Value = LayerIndex> {
    let path = || "[a-c é%]{1,3}(/[a-c.]{1,3}){0,3}";
    let removed = || prop::collection::btree_set(path(), 0..4);
    (prop::collection::vec((path(), entries()), 0..30), removed(), removed()).prop_map(|(entries, removed, opaque)| {
        let mut index = LayerIndex { removed, opaque, ..LayerIndex::default() };
        entries.iter().for_each(|(path, met)| index.insert(path, met.clone()));
        index
    })
}

proptest! {
    /// An index is what is read of its record.
    #[test]
    fn an_index_is_what_is_read_of_its_record(index in indexes()) {
        let bytes = serde_json::to_vec(&index).expect("written");
        prop_assert_eq!(serde_json::from_slice::<LayerIndex>(&bytes).expect("read"), index);
    }

    /// A record whose bytes were changed is an error or an index, never a panic.
    #[test]
    fn a_broken_record_is_no_panic(index in indexes(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&index).expect("written");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = serde_json::from_slice::<LayerIndex>(&bytes);
    }

    /// A layer that is applied twice changes nothing the second time.
    #[test]
    fn a_layer_twice_is_the_layer_once(below in indexes(), above in indexes()) {
        let once = PathIndex::from_layers([&below, &above]);
        let twice = PathIndex::from_layers([&below, &above, &above]);
        let paths = |index: &PathIndex| index.below("").map(|(path, met)| (path.to_owned(), met.clone())).collect::<Vec<_>>();
        prop_assert_eq!(paths(&once), paths(&twice));
    }
}
