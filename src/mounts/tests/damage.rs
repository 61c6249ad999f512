//! Damaged blobs are errors. No wrong byte ever arrives.

use super::model::{Kept, Mount, NO_LIMITS, Sink, assert_content, assert_same, noise};
use crate::mounts::file_list::FileList;
use crate::mounts::{Saved, load, stream, verify};
use crate::store::{Name, ObjectStore as _};

async fn saved() -> (Kept, Mount, (Saved, FileList)) {
    let (store, mut mount) = (Kept::new(), Mount::new());
    for number in 0..40 {
        mount.write(&format!("d/f{number}"), noise(20_000, number));
        mount.write(&format!("d/t{number}"), format!("text {number} ").repeat(500));
    }
    mount.write("large", noise(2 << 20, 100));
    let saved = mount.save(&store, &NO_LIMITS, 1).await.unwrap();
    (store, mount, saved)
}

/// Brings the mount in. Returns whether it came completely; all that came is right in any case.
async fn comes(store: &Kept, mount: &Mount, saved: &Saved) -> bool {
    let store = store.again();
    let Ok(list) = load(&store.blobs, &saved.mount).await else { return false };
    let mut sink = Sink::default();
    let done = stream(&store.blobs, &list, &mut sink).await;
    if done.is_ok() {
        assert_content(&list, &sink, mount);
    }
    for (file, data) in &sink.0 {
        let expected = mount.contents[&list.files[*file as usize].entry.path].bytes();
        for (offset, data) in data {
            let offset = usize::try_from(*offset).unwrap();
            assert!(expected[offset..offset + data.len()] == **data);
        }
    }
    done.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_gives_other_content() {
    let (store, mount, (saved, _)) = saved().await;
    assert!(comes(&store, &mount, &saved).await);
    for blob in saved.mount.blobs() {
        let name = Name::blob(&blob.digest);
        let right = store.get(&name).await;
        let step = (right.len() / 50).max(1);
        let places = (0..20).chain((20..right.len()).step_by(step)).chain(right.len() - 4..right.len());
        let mut refused = 0;
        for (count, place) in places.clone().enumerate() {
            let mut bytes = right.to_vec();
            bytes[place] ^= 1 << (count % 8);
            store.store.set(&name, bytes.into());
            refused += usize::from(!comes(&store, &mount, &saved).await);
        }
        // A flipped bit of a frame's header may leave the content as it is.
        assert!(refused + 4 >= places.count(), "{refused}");
        for length in [0, 1, right.len() / 2, right.len() - 1] {
            store.store.set(&name, right.slice(..length));
            assert!(!comes(&store, &mount, &saved).await, "{length}");
        }
        store.store.delete(&name).await.unwrap();
        assert!(!comes(&store, &mount, &saved).await);
        store.store.set(&name, right);
    }
    assert!(comes(&store, &mount, &saved).await);
}

#[tokio::test]
async fn the_next_save_repairs_a_damaged_pack() {
    let (store, mut mount, first) = saved().await;
    let blob = first.0.mount.packs[0].digest.clone();
    let name = Name::blob(&blob);
    let mut bytes = store.get(&name).await.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.store.set(&name, bytes.into());
    let error = stream(&store.blobs, &first.1, &mut Sink::default()).await.unwrap_err();
    assert!(error.to_string().contains(&blob.to_string()), "{error}");
    assert!(!store.blobs.is_distrusted(), "no layer is in doubt because of a mount");
    // Both with the earlier list and without.
    for earlier in [Some(&first), None] {
        let second = mount.save_after(&store, earlier, &NO_LIMITS, 2).await.unwrap();
        assert_same(&store.again(), &second.1, &mount).await;
    }
}

#[tokio::test]
async fn a_foreign_list_is_refused() {
    let (store, mount, (mut saved, _)) = saved().await;
    let (_, _, (other, _)) = {
        let mut mount = Mount::new();
        mount.write("other", "other");
        let other = mount.save(&store, &NO_LIMITS, 1).await.unwrap();
        (0, 0, other)
    };
    assert!(comes(&store, &mount, &saved).await);
    saved.mount.list = other.mount.list;
    let error = load(&store.blobs, &saved.mount).await.unwrap_err();
    assert!(error.to_string().contains("differs from the record"), "{error}");
}

#[tokio::test]
async fn a_check_says_what_is_wrong() {
    let (store, _, (saved, _)) = saved().await;
    assert_eq!(verify(&store.blobs, &saved.mount).await.unwrap(), None);
    for blob in saved.mount.blobs() {
        let name = Name::blob(&blob.digest);
        let right = store.get(&name).await;
        let mut bytes = right.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.store.set(&name, bytes.into());
        let why = verify(&store.again().blobs, &saved.mount).await.unwrap().unwrap();
        assert!(why.contains(&blob.digest.to_string()) && why.contains("damaged"), "{why}");
        store.store.delete(&name).await.unwrap();
        let why = verify(&store.again().blobs, &saved.mount).await.unwrap().unwrap();
        assert!(why.contains(&blob.digest.to_string()) && why.contains("missing"), "{why}");
        store.store.set(&name, right);
    }
}
