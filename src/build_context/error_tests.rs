//! Snapshots of the errors of a build context. Where BuildKit has a message for the same fault, hakobi has its words.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use super::{Entry, Held, Node, NodeKind, Selection, Tree, WalkError, hash, walk};
use crate::domain::Selector;

fn line(error: &impl std::fmt::Display) -> String {
    format!("{error}\n")
}

fn select(include: &[&str], exclude: &[&str]) -> Selection {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Selection { include: owned(include), exclude: owned(exclude), follow: Vec::new() }
}

#[test]
fn walks() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    std::fs::write(root.join("file"), "x").expect("written");
    let mut all = |_: Entry| true;
    let mut out = String::new();
    out.push_str(&line(&walk(&root.join("missing"), &Selection::default(), &mut all).expect_err("missing")));
    out.push_str(&line(&walk(&root.join("file"), &Selection::default(), &mut all).expect_err("a file")));
    for selection in [select(&["a["], &[]), select(&[], &["!"]), select(&[], &["b\\"])] {
        out.push_str(&line(&walk(root, &selection, &mut all).expect_err("a pattern")));
    }
    out.push_str(&line(&walk(root, &Selection::default(), &mut |_| false).expect_err("cancelled")));
    out.push_str(&line(&WalkError::Changed("app/log".to_owned())));
    let denied = WalkError::Read { path: "secret".to_owned(), error: io::ErrorKind::PermissionDenied.into() };
    out.push_str(&line(&denied));
    insta::assert_snapshot!("walks", out);
}

#[test]
fn selections() {
    let mut tree = Tree::default();
    let kind = NodeKind::Link("l".to_owned());
    tree.insert("l", Node { kind, mode: 0o777, owner: (0, 0), xattrs: BTreeMap::new() });
    let mut out = String::new();
    let excluded = Selector { exclude: vec!["a[".to_owned()], ..Selector::new("/", true) };
    let wildcard = Selector { wildcard: true, ..Selector::new("/a[", true) };
    for selector in [Selector::new("/app/a", true), Selector::new("/l", true), excluded, wildcard] {
        out.push_str(&line(&tree.digest(&[selector]).expect_err("not selected")));
    }
    insta::assert_snapshot!("selections", out);
}

/// Returns what changed in a directory between its hash and a walk.
fn difference(change: impl FnOnce(&Path)) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    std::fs::write(root.join("file"), "x").expect("written");
    symlink("file", root.join("link")).expect("linked");
    let tree = hash(root, &Selection::default()).expect("hashed");
    change(root);
    let mut held = Held::against(Arc::new(tree));
    let mut found = None;
    let walked = walk(root, &Selection::default(), &mut |entry| {
        found = held.entry(&entry).err();
        found.is_none()
    });
    assert_eq!(walked.is_err(), found.is_some());
    line(&found.or_else(|| held.end().err()).expect("a difference"))
}

#[test]
fn differences() {
    let mode = std::fs::Permissions::from_mode(0o751);
    let mut out = difference(|root| std::fs::write(root.join("new"), "x").expect("written"));
    out.push_str(&difference(|root| std::fs::remove_file(root.join("link")).expect("removed")));
    out.push_str(&difference(|root| std::fs::set_permissions(root.join("file"), mode).expect("set")));
    out.push_str(&difference(|root| {
        std::fs::remove_file(root.join("link")).expect("removed");
        symlink("other", root.join("link")).expect("linked");
    }));
    out.push_str(&difference(|root| {
        std::fs::remove_file(root.join("file")).expect("removed");
        std::fs::create_dir(root.join("file")).expect("made");
    }));
    out.push_str(&line(&super::Difference::of_content("file")));
    insta::assert_snapshot!("differences", out);
}

#[test]
fn exported_states() {
    let tar = |kind: u8, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_path("app/a").expect("a path");
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        [header.as_bytes().to_vec(), vec![0; 1024]].concat()
    };
    let mut out = String::new();
    for bytes in [tar(b'2', ""), tar(b'1', "app/b"), tar(b'S', "")] {
        out.push_str(&line(&Tree::from_tar(&*bytes).expect_err("no state")));
    }
    insta::assert_snapshot!("exported-states", out);
}
