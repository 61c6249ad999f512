//! Random small trees come back as they were.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Node {
    Directory { mode: u32, time: i64, children: BTreeMap<String, Node> },
    File { mode: u32, time: i64, parts: Vec<(u32, u8)> },
    Link { target: String, time: i64 },
    SameAsFirst,
}

fn node() -> impl Strategy<Value = Node> {
    let time = -4_000_000_000_000_000_000..8_000_000_000_000_000_000_i64;
    let part = (prop_oneof![Just(0_u32), 1..5000_u32, 1_000_000..1_100_000_u32], any::<u8>());
    let leaf = prop_oneof![
        (0..0o10000_u32, time.clone(), prop::collection::vec(part, 0..4)).prop_map(|(mode, time, parts)| Node::File {
            mode: mode | 0o400,
            time,
            parts
        }),
        ("[a-z/.]{1,20}", time.clone()).prop_map(|(target, time)| Node::Link { target, time }),
        Just(Node::SameAsFirst),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        (0..0o10000_u32, time.clone(), prop::collection::btree_map("[a-c\u{e9}\"\n-]{1,3}", inner, 0..5))
            .prop_map(|(mode, time, children)| Node::Directory { mode: mode | 0o700, time, children })
    })
}

fn make(path: &Path, node: &Node, first: &mut Option<PathBuf>) {
    match node {
        Node::Directory { mode, time, children } => {
            if !path.exists() {
                fs::create_dir(path).unwrap();
            }
            for (name, child) in children {
                make(&path.join(name), child, first);
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            set_time(path, *time);
        }
        Node::File { mode, time, parts } => {
            // Each part is a byte, many times. The byte 0 is a hole.
            let file = fs::File::create(path).unwrap();
            let mut offset = 0;
            for (length, byte) in parts {
                if *byte != 0 {
                    std::os::unix::fs::FileExt::write_all_at(&file, &vec![*byte; *length as usize], offset).unwrap();
                }
                offset += u64::from(*length);
            }
            file.set_len(offset).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            set_time(path, *time);
            first.get_or_insert_with(|| path.to_path_buf());
        }
        Node::Link { target, time } => {
            symlink(target, path).unwrap();
            set_time(path, *time);
        }
        Node::SameAsFirst => {
            if let Some(first) = first {
                fs::hard_link(first, path).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn random_trees_come_back(children in prop::collection::btree_map("[a-c]{1,2}", node(), 0..6), time in 0..i64::MAX) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(from.path(), &Node::Directory { mode: 0o700, time, children }, &mut None);
        let at = fill(to.path(), &requests_to_fill(from.path())).unwrap();
        prop_assert_eq!(seen(from.path()), seen(to.path()));
        let again = list(to.path(), Some(at));
        prop_assert_eq!(again.changed(), [""; 0]);
        prop_assert_eq!(again.summary, list(from.path(), None).summary);
    }
}
