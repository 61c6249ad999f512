//! Random trees and edits: what is brought in is what was saved.

use proptest::prelude::*;

use super::model::{Content, Kept, Mount, NO_LIMITS, assert_same, noise};
use crate::mounts::entry::MountEntryKind;

#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u32, u64),
    Sparse(u8, u32, u64),
    Patch(u8, u32),
    Remove(u8),
    Rename(u8, u8),
    Directory(u8),
    Lose(u8),
    Save(bool),
}

fn edit() -> impl Strategy<Value = Edit> {
    let file = 0u8..12;
    prop_oneof![
        4 => (file.clone(), prop_oneof![Just(0u32), 1..2000u32, 250_000..900_000u32], 0..6u64).prop_map(|(file, size, seed)| Edit::Write(file, size, seed)),
        1 => (file.clone(), 1..400_000u32, 0..6u64).prop_map(|(file, size, seed)| Edit::Sparse(file, size, seed)),
        2 => (file.clone(), any::<u32>()).prop_map(|(file, place)| Edit::Patch(file, place)),
        1 => file.clone().prop_map(Edit::Remove),
        1 => (file.clone(), file.clone()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => file.clone().prop_map(Edit::Directory),
        1 => any::<u8>().prop_map(Edit::Lose),
        3 => any::<bool>().prop_map(Edit::Save),
    ]
}

fn name(file: u8) -> String {
    format!("d{}/f{file}", file % 3)
}

async fn run(edits: Vec<Edit>) {
    let (store, mut mount, mut last) = (Kept::new(), Mount::new(), None);
    for (now, edit) in (0..).zip(edits.into_iter().chain([Edit::Save(true)])) {
        match edit {
            Edit::Write(file, size, seed) => mount.write(&name(file), noise(size as usize, seed)),
            Edit::Sparse(file, size, seed) => {
                let data = [(size.into(), noise(size as usize, seed).into()), (u64::from(size) * 3, "end".into())];
                mount.put(&name(file), Content { size: 3_000_000, data: data.into() });
            }
            Edit::Patch(file, place) => {
                let Some(content) = mount.contents.get(&name(file)).filter(|content| content.size > 0) else { continue };
                let mut bytes = content.bytes();
                let place = place as usize % bytes.len();
                bytes[place] ^= 0x55;
                mount.write(&name(file), bytes);
            }
            Edit::Remove(file) => mount.remove(&name(file)),
            Edit::Rename(from, to) if mount.contents.contains_key(&name(from)) && mount.contents.contains_key(&name(to)) => {
                if from != to {
                    mount.rename(&name(from), &name(to));
                }
            }
            Edit::Rename(..) => {}
            Edit::Directory(number) => mount.set(&format!("e{number}"), MountEntryKind::Directory),
            Edit::Lose(number) => {
                let Some((saved, _)) = &last else { continue };
                let saved: &crate::mounts::Saved = saved;
                if let Some(pack) = saved.mount.packs.get(usize::from(number) % 4) {
                    store.blobs.remove(&pack.digest).await.unwrap();
                }
            }
            Edit::Save(with_earlier) => {
                let earlier = last.as_ref().filter(|_| with_earlier);
                let saved = mount.save_after(&store, earlier, &NO_LIMITS, now).await.unwrap();
                assert_same(&store, &saved.1, &mount).await;
                last = Some(saved);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_brought_in_is_what_was_saved(edits in prop::collection::vec(edit(), 1..25)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(edits));
    }
}
