//! Lists and packs that somebody else wrote.

use super::model::{Kept, Mount, NO_LIMITS, Sink, noise};
use crate::mounts::entry::MountEntryKind;
use crate::mounts::file_list::{self, FileList};
use crate::mounts::stream;

async fn list() -> (Kept, FileList) {
    let (store, mut mount) = (Kept::new(), Mount::new());
    mount.write("d/one", noise(3000, 1));
    mount.write("d/two", noise(3000, 2));
    mount.write("large", noise(2 << 20, 3));
    mount.set("link", MountEntryKind::HardLink { of: "d/one".to_owned() });
    mount.set("to", MountEntryKind::Link { target: "x".to_owned() });
    let (_, list) = mount.save(&store, &NO_LIMITS, 1).await.unwrap();
    (store, list)
}

#[tokio::test]
async fn impossible_lists_are_refused() {
    let (_, right) = list().await;
    assert_eq!(file_list::decode(&file_list::encode(&right).unwrap()), Ok(right.clone()));
    let at = |path: &str| right.files.iter().position(|file| file.entry.path == path).unwrap();
    let (one, two, large, link, to) = (at("d/one"), at("d/two"), at("large"), at("link"), at("to"));
    type Change = Box<dyn Fn(&mut FileList)>;
    let path = |file: usize, path: &str| -> Change {
        let path = path.to_owned();
        Box::new(move |list| list.files[file].entry.path.clone_from(&path))
    };
    let changes: Vec<(&str, Change)> = vec![
        ("up", path(two, "../two")),
        ("up inside", path(two, "d/../two")),
        ("absolute", path(two, "/two")),
        ("other spelling", path(two, "d/\u{f00c3}\u{f00a4}")),
        ("dot", path(two, "d/.")),
        ("no name", path(two, "d/")),
        ("zero", path(two, "d/\0")),
        ("twice", path(two, "d/one")),
        ("no directory", path(two, "e/two")),
        ("below a file", path(two, "d/one/two")),
        ("second root", path(two, "")),
        ("below a link", Box::new(move |list| list.files[to].entry.path = "a".to_owned())),
        (
            "hard link to itself",
            Box::new(move |list| list.files[link].entry.kind = MountEntryKind::HardLink { of: "link".into() }),
        ),
        (
            "hard link to nothing",
            Box::new(move |list| list.files[link].entry.kind = MountEntryKind::HardLink { of: "no".into() }),
        ),
        ("hard link out", Box::new(move |list| list.files[link].entry.kind = MountEntryKind::HardLink { of: "../x".into() })),
        (
            "hard link to a directory",
            Box::new(move |list| list.files[link].entry.kind = MountEntryKind::HardLink { of: "d".into() }),
        ),
        ("link to nothing", Box::new(move |list| list.files[to].entry.kind = MountEntryKind::Link { target: String::new() })),
        ("too small", Box::new(move |list| list.files[one].entry.kind = MountEntryKind::File { size: 2999 })),
        ("too large", Box::new(move |list| list.files[one].entry.kind = MountEntryKind::File { size: u64::MAX })),
        ("directory with content", Box::new(move |list| list.files[one].entry.kind = MountEntryKind::Directory)),
        ("odd mode", Box::new(move |list| list.files[one].entry.mode = 0o100_644)),
        ("no root", Box::new(|list| drop(list.files.remove(0)))),
        ("nothing", Box::new(|list| *list = FileList::default())),
        ("part outside", Box::new(|list| list.parts[0].offset = 1)),
        ("part far outside", Box::new(|list| list.parts[0].offset = u64::MAX)),
        ("no such chunk", Box::new(|list| list.parts[0].chunk = 1_000_000)),
        ("overlap", Box::new(move |list| list.parts[list.files[large].parts.start as usize + 1].offset -= 1)),
        ("chunk of another", Box::new(|list| list.parts[0].chunk = list.parts[1].chunk)),
        ("parts out of range", Box::new(move |list| list.files[one].parts.end += 1)),
        ("no such pack", Box::new(|list| list.chunks.last_mut().unwrap().pack = 9)),
        ("no such frame", Box::new(|list| list.chunks.last_mut().unwrap().frame = 99)),
        ("outside of the frame", Box::new(|list| list.chunks.last_mut().unwrap().start = u32::MAX)),
        ("empty chunk", Box::new(|list| list.chunks[0].length = 0)),
        ("huge frame", Box::new(|list| list.packs[0].frames[0].length = u32::MAX)),
        ("empty frame", Box::new(|list| list.packs[0].frames[0].packed = 0)),
        ("huge pack", Box::new(|list| list.packs[0].frames[0].packed = 1 << 30)),
        ("unused chunk", Box::new(move |list| list.files[one].entry.kind = MountEntryKind::File { size: 0 })),
    ];
    for (why, change) in changes {
        let mut list = right.clone();
        change(&mut list);
        if why != "below a link" {
            assert!(list.check().is_err(), "{why}");
        }
        // An encoded form exists for some of them, and is refused too.
        if let Ok(bytes) = file_list::encode(&list)
            && let Ok(back) = file_list::decode(&bytes)
        {
            assert!(back.check().is_ok() && (why == "below a link" || back != list), "{why}");
        }
    }
}

#[tokio::test]
async fn bombs_and_noise_are_refused() {
    let (_, list) = list().await;
    let bytes = file_list::encode(&list).unwrap();
    for length in 0..bytes.len() {
        assert!(file_list::decode(&bytes[..length]).is_err(), "{length}");
    }
    let plain = zstd::decode_all(&*bytes).unwrap();
    let packed = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    assert_eq!(file_list::decode(&packed(&plain)), Ok(list));
    // Any byte may be anything: there is no panic, and what is accepted is possible.
    for place in 0..plain.len().min(1500) {
        for value in [0, 1, 0x7f, 0x80, 0xff, plain[place] ^ 1] {
            let mut bytes = plain.clone();
            bytes[place] = value;
            if let Ok(list) = file_list::decode(&packed(&bytes)) {
                assert_eq!(list.check(), Ok(()));
            }
        }
    }
    let magic = b"hakobi-mount\x01".as_slice();
    let zeros = vec![0; 64 << 20];
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    // A gigabyte of packs without frames, counts without items, and paths that each repeat a long one.
    let many_packs = [magic, &[0x80, 0x80, 0x80, 0x20], &zeros].concat();
    let no_items = [magic, &most].concat();
    let mut paths = [magic, &[0, 0, 1, 0, 0, 0, 0, 0x80, 0x80, 0x10, 0, 0x80, 0x20], &[b'a'; 4096], &[0; 4]].concat();
    for _ in 0..262_143 {
        paths.extend([0x80, 0x20, 0, 0, 0, 0, 0]);
    }
    let trailing = [&*plain, &[0]].concat();
    for bytes in [zeros.clone(), many_packs, no_items, paths, trailing, Vec::new()] {
        assert!(file_list::decode(&packed(&bytes)).is_err());
    }
    assert!(file_list::decode(b"no zstd at all").is_err());
}

#[tokio::test]
async fn a_frame_that_unpacks_to_more_is_refused() {
    let (store, list) = list().await;
    for content in [vec![0; 64 << 20], vec![0; 10]] {
        let mut list = list.clone();
        let bomb = zstd::encode_all(&*content, 3).unwrap();
        let blob = crate::transfer::BytesSource::new(bomb.clone().into());
        store.blobs.keep(&blob).await.unwrap();
        let pack = &mut list.packs[0];
        (pack.blob.digest, pack.blob.size) = (crate::domain::Digest::hash(&bomb), bomb.len() as u64);
        pack.frames.truncate(1);
        pack.frames[0].packed = u32::try_from(bomb.len()).unwrap();
        list.chunks.truncate(1);
        assert!(stream(&store.blobs, &list, &mut Sink::default()).await.is_err());
    }
}
