//! What a save uploads, asks for and drops.

use std::collections::BTreeMap;

use super::model::{Content, Kept, Mount, NO_LIMITS, assert_same, noise};
use crate::mounts::Limits;
use crate::mounts::entry::MountEntryKind;

/// A mount of many files of 20 KB that no compression makes smaller.
fn many(files: u64) -> Mount {
    let mut mount = Mount::new();
    for number in 0..files {
        mount.write(&format!("d{}/f{number}", number % 7), noise(20_000, number));
    }
    mount
}

#[tokio::test]
async fn every_kind_comes_back() {
    let (store, mut mount) = (Kept::new(), Mount::new());
    mount.write("empty", "");
    mount.write("small", "text");
    mount.write("large", noise(3 << 20, 1));
    let data = BTreeMap::from([(5, "x".into()), (4 << 20, noise(700_000, 2).into())]);
    mount.put("sparse", Content { size: 9 << 20, data });
    mount.put("all-hole", Content { size: 1 << 30, data: BTreeMap::new() });
    mount.contents.get_mut("all-hole").unwrap().size = 1 << 20;
    mount.set("all-hole", MountEntryKind::File { size: 1 << 20 });
    mount.set("small2", MountEntryKind::HardLink { of: "small".to_owned() });
    mount.set("to", MountEntryKind::Link { target: crate::domain::spelled(b"nowhere/\xff") });
    mount.set("pipe", MountEntryKind::Pipe);
    mount.write(&crate::domain::spelled(b"caf\xe9"), "name");
    mount.entries.get_mut("small").unwrap().xattrs.insert("user.a".to_owned(), vec![0, 255]);
    mount.entries.get_mut("small").unwrap().modified = -5;
    let (saved, list) = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_same(&store, &list, &mount).await;
    assert_eq!(saved.mount.files, 9);
    assert_eq!(saved.mount.bytes, 4 + (3 << 20) + 1 + 700_000 + 4);
    assert_eq!(saved.mount.blobs().count(), 2);
    let text = serde_json::to_string(&saved.mount).unwrap();
    assert_eq!(serde_json::from_str::<crate::mounts::saved::SavedMount>(&text).unwrap(), saved.mount);
}

#[tokio::test]
async fn an_empty_mount_can_be_saved() {
    let (store, mut mount) = (Kept::new(), Mount::new());
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_same(&store, &first.1, &mount).await;
    assert!(mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap().0.is_same);
}

#[tokio::test]
async fn the_second_save_uploads_what_changed() {
    let (store, mut mount) = (Kept::new(), many(1000));
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_eq!(first.0.new, 20_000_000);
    for number in 0..10 {
        mount.write(&format!("d{}/f{number}", number % 7), noise(20_000, 5000 + number));
    }
    let second = mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap();
    assert_eq!((second.0.new, second.0.read), (200_000, 200_000));
    assert!(second.0.uploaded < 300_000, "{} bytes", second.0.uploaded);
    assert_same(&store, &second.1, &mount).await;
    assert_eq!(second.1.files.iter().filter(|file| file.used == 200).count(), 10);
    // Nothing changed any more.
    let blobs = store.count().await;
    let third = mount.save_after(&store, Some(&second), &NO_LIMITS, 300).await.unwrap();
    assert!(third.0.is_same && third.0.mount.list == second.0.mount.list);
    assert_eq!((third.0.uploaded, store.count().await), (0, blobs));
    // Times of use alone are a new list, but only if they are much later.
    mount.used.insert("d1/f1".to_owned());
    assert!(mount.save_after(&store, Some(&second), &NO_LIMITS, 300).await.unwrap().0.is_same);
    mount.used.insert("d1/f1".to_owned());
    let fourth = mount.save_after(&store, Some(&second), &NO_LIMITS, 90_000).await.unwrap().0;
    assert!(!fourth.is_same && fourth.mount.packs == second.0.mount.packs && fourth.read == 0);
}

#[tokio::test]
async fn inserted_bytes_upload_only_what_is_around() {
    let (store, mut mount) = (Kept::new(), Mount::new());
    let mut bytes = noise(20 << 20, 1);
    mount.write("large", bytes.clone());
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    bytes.splice(..0, *b"inserted");
    mount.write("large", bytes);
    let second = mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap();
    assert!(second.0.new <= 3 << 20, "{} bytes", second.0.new);
    assert_same(&store, &second.1, &mount).await;
}

#[tokio::test]
async fn the_same_content_is_uploaded_once() {
    let (store, mut mount) = (Kept::new(), many(30));
    mount.write("copy", noise(20_000, 3));
    mount.write("copy2", noise(20_000, 3));
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_eq!((first.0.new, first.0.read), (600_000, 640_000));
    assert_same(&store, &first.1, &mount).await;
    mount.rename("d1/f1", "d2/other");
    mount.rename("d1/f8", "d3/other");
    mount.remove("copy2");
    let second = mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap();
    assert_eq!((second.0.new, second.0.read), (0, 40_000));
    assert_eq!(second.0.mount.packs, first.0.mount.packs);
    assert_same(&store, &second.1, &mount).await;
    // A process that does not know the last list sends all of it.
    mount.changed.extend(mount.entries.keys().cloned());
    let third = mount.save_after(&store, Some(&second), &NO_LIMITS, 300).await.unwrap();
    assert_eq!(third.0.new, 0);
    assert_same(&store, &third.1, &mount).await;
}

#[tokio::test]
async fn files_that_vanish_are_left_out() {
    let (store, mut mount) = (Kept::new(), many(5));
    mount.set("link", MountEntryKind::HardLink { of: "d1/f1".to_owned() });
    mount.vanishing.insert("d1/f1".to_owned());
    let (saved, list) = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_eq!((saved.gone, saved.mount.files), (1, 4));
    for path in ["d1/f1", "link"] {
        mount.remove(path);
    }
    assert_same(&store, &list, &mount).await;
}

#[tokio::test]
async fn the_longest_unused_files_go_first() {
    let (store, mut mount) = (Kept::new(), many(10));
    mount.write("huge", noise(150_000, 99));
    mount.set("link", MountEntryKind::HardLink { of: "d0/f0".to_owned() });
    let mut last = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    for (now, number) in [(200, 0), (100_000, 1), (200_000, 2), (300_000, 3)] {
        mount.used.insert(format!("d{number}/f{number}"));
        last = mount.save_after(&store, Some(&last), &NO_LIMITS, now).await.unwrap();
    }
    // The first use was too soon for a new list, so `f0` is as old as the others, and the oldest by its time.
    let limits = Limits { most_bytes: 100_000, most_files: u64::MAX };
    let (saved, list) = mount.save_after(&store, Some(&last), &limits, 400_000).await.unwrap();
    let left = |list: &crate::mounts::file_list::FileList| {
        let files = list.files.iter().filter(|file| file.entry.kind != MountEntryKind::Directory);
        files.map(|file| file.entry.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(left(&list), ["d1/f1", "d1/f8", "d2/f2", "d2/f9", "d3/f3"]);
    assert_eq!((saved.dropped_files, saved.dropped_bytes), (7, 250_000));
    assert_eq!(saved.mount.bytes, 100_000);
    assert!(list.files.iter().any(|file| file.entry.path == "d0"), "directories stay");
    // What was dropped is still in the mount, and is dropped again: that is no change.
    let again = mount.save_after(&store, Some(&(saved.clone(), list)), &limits, 400_001).await.unwrap();
    assert!(again.0.is_same);
    let limits = Limits { most_bytes: u64::MAX, most_files: 2 };
    let (saved, list) = mount.save_after(&store, Some(&again), &limits, 400_002).await.unwrap();
    assert_eq!(left(&list), ["d2/f2", "d3/f3"]);
    assert_eq!(saved.mount.files, 2);
}

#[tokio::test]
async fn poor_packs_are_packed_again() {
    let (store, mut mount) = (Kept::new(), many(1000));
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    assert_eq!(first.0.mount.packs.len(), 3);
    for number in (0..1000).filter(|number| number % 4 > 0) {
        mount.remove(&format!("d{}/f{number}", number % 7));
    }
    let second = mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap();
    assert_eq!((second.0.new, second.0.mount.packs.len()), (0, 3), "their state is known only from now on");
    mount.write("more", "more");
    let third = mount.save_after(&store, Some(&second), &NO_LIMITS, 300).await.unwrap();
    assert_eq!((third.0.new, third.0.mount.packs.len()), (5_000_004, 1));
    assert_same(&store, &third.1, &mount).await;
}

#[tokio::test]
async fn many_small_packs_become_one() {
    let (store, mut mount) = (Kept::new(), many(10));
    let mut last = mount.save(&store, &NO_LIMITS, 0).await.unwrap();
    let mut most = 0;
    for number in 1..60 {
        mount.write(&format!("new{number}"), noise(1000, 1000 + number));
        last = mount.save_after(&store, Some(&last), &NO_LIMITS, number).await.unwrap();
        most = most.max(last.0.mount.packs.len());
    }
    assert!((10..=18).contains(&most), "{most}");
    assert_same(&store, &last.1, &mount).await;
}

#[tokio::test]
async fn a_lost_pack_is_made_again() {
    let (store, mut mount) = (Kept::new(), many(1000));
    let first = mount.save(&store, &NO_LIMITS, 100).await.unwrap();
    let lost = first.0.mount.packs[1].clone();
    store.blobs.remove(&lost.digest).await.unwrap();
    let second = mount.save_after(&store, Some(&first), &NO_LIMITS, 200).await.unwrap();
    assert!((7_000_000..9_000_000).contains(&second.0.new), "{}", second.0.new);
    assert_same(&store, &second.1, &mount).await;
}
