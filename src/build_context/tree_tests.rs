//! Tests how one difference between two trees changes the digests of selections.

use super::*;

/// Makes a tree of `name=content`, `name/`, `name->target` or `name*mode=content`.
fn tree(entries: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for entry in entries {
        let (path, kind) = if let Some((path, target)) = entry.split_once("->") {
            (path, NodeKind::Link(target.to_owned()))
        } else if let Some((path, content)) = entry.split_once('=') {
            (path, NodeKind::File(Digest::hash(content.as_bytes())))
        } else {
            (entry.trim_end_matches('/'), NodeKind::Directory)
        };
        let (path, mode) = path.split_once('*').unwrap_or((path, "644"));
        let mode = u32::from_str_radix(mode, 8).expect("a mode");
        tree.insert(path, Node { kind, mode, owner: (0, 0), xattrs: BTreeMap::new() });
    }
    tree
}

fn plain(path: &str) -> Selector {
    Selector::new(path, true)
}

fn wild(path: &str) -> Selector {
    Selector { wildcard: has_wildcards(path), ..plain(path) }
}

fn digest(tree: &Tree, selector: &Selector) -> Digest {
    tree.digest(std::slice::from_ref(selector)).expect("selected")
}

/// Asserts that a selection has the same digest in two trees.
fn same(selector: &Selector, one: &[&str], other: &[&str]) {
    assert_eq!(digest(&tree(one), selector), digest(&tree(other), selector), "{selector:?}: {one:?} and {other:?}");
}

fn differ(selector: &Selector, one: &[&str], other: &[&str]) {
    assert_ne!(digest(&tree(one), selector), digest(&tree(other), selector), "{selector:?}: {one:?} and {other:?}");
}

#[test]
fn a_file_is_its_bytes_mode_and_kind_wherever_it_lies() {
    let file = plain("/a");
    same(&file, &["a=1", "b=1"], &["a=1", "b=2"]);
    differ(&file, &["a=1"], &["a=2"]);
    differ(&file, &["a=1"], &["a*755=1"]);
    differ(&plain("/l"), &["l->a", "a=1"], &["l->a", "a=2"]);
    differ(&Selector::new("/l", false), &["l->a", "a=1"], &["l->b", "b=1"]);
    same(&Selector::new("/l", false), &["l->a", "a=1"], &["l->a", "a=2"]);
    assert_eq!(digest(&tree(&["a=1"]), &file), digest(&tree(&["x/", "x/a=1"]), &plain("/x/a")));
}

#[test]
fn a_directory_is_all_below_it_and_nothing_beside() {
    let directory = plain("/d");
    same(&directory, &["d/", "d/a=1", "d-x=1"], &["d/", "d/a=1", "d-x=2", "d.y=3"]);
    differ(&directory, &["d/", "d/a=1"], &["d/", "d/b=1"]);
    differ(&directory, &["d/", "d/a=1"], &["d/", "d/a=1", "d/e/"]);
    differ(&directory, &["d/", "d/e/", "d/e/f=1"], &["d/", "d/e*755/", "d/e/f=1"]);
    // The bytes are the same in the same order, but under other names.
    differ(&directory, &["d/", "d/a/", "d/a/b=1", "d/c=2"], &["d/", "d/a/", "d/a/b=1", "d/a/c=2"]);
    differ(&directory, &["d/", "d/l->a"], &["d/", "d/l->b"]);
    // Links inside a directory are not followed.
    same(&directory, &["d/", "d/l->/x", "x=1"], &["d/", "d/l->/x", "x=2"]);
}

#[test]
fn links_on_the_way_are_followed_and_loops_end() {
    same(&plain("/l/a"), &["d/", "d/a=1", "l->d"], &["e/", "e/a=1", "l->/e"]);
    same(&plain("/l/a"), &["d/", "d/a=1", "l->../../d"], &["d/", "d/a=1", "l->d"]);
    assert_eq!(tree(&["l->l"]).digest(&[plain("/l")]), Err(NotSelected::Links("/l".to_owned())));
    assert_eq!(tree(&["l->x"]).digest(&[plain("/l")]), Err(NotSelected::Absent("/l".to_owned())));
    assert_eq!(tree(&[]).digest(&[plain("/a/b")]), Err(NotSelected::Absent("/a/b".to_owned())));
}

#[test]
fn wildcards_select_names_and_what_is_below_them() {
    let text = wild("/*.txt");
    same(&text, &["a.txt=1", "b=1"], &["a.txt=1", "b=2"]);
    differ(&text, &["a.txt=1"], &["b.txt=1"]);
    differ(&text, &["a.txt=1"], &["a.txt=1", "b.txt=1"]);
    differ(&text, &["l.txt->a", "a=1"], &["l.txt->a", "a=2"]);
    let directories = wild("/d*");
    differ(&directories, &["d1/", "d1/x=1"], &["d1/", "d1/x=2"]);
    differ(&directories, &["d1/", "d1/x=1"], &["d1/", "d1/y=1"]);
    same(&directories, &["d1/", "d1/x=1", "e/", "e/x=1"], &["d1/", "d1/x=1", "e/", "e/x=2"]);
    // A single path gets its own name, so its directory does not matter.
    same(&wild("/src/*/f"), &["src/", "src/a/", "src/a/f=1"], &["src/", "src/b/", "src/b/f=1"]);
    differ(&wild("/s*"), &["s1=1"], &["s2=1"]);
    same(&wild("/no*"), &["a=1"], &["b=1"]);
    // Links in the part before the wildcard are followed.
    same(&wild("/l/*.c"), &["d/", "d/a.c=1", "l->d"], &["e/", "e/a.c=1", "l->e"]);
}

#[test]
fn patterns_narrow_a_selection() {
    let without = |pattern: &str| Selector { exclude: vec![pattern.to_owned()], ..plain("/") };
    same(&without("*.md"), &["a=1", "b.md=1"], &["a=1", "b.md=2"]);
    differ(&without("*.md"), &["a=1", "d/", "d/b.md=1"], &["a=1", "d/", "d/b.md=2"]);
    same(&without("**/*.md"), &["a=1", "d/", "d/b.md=1"], &["a=1", "d/", "d/b.md=2"]);
    same(&without("d"), &["a=1", "d/", "d/b=1"], &["a=1", "d/", "d/b=2"]);
    let only = |pattern: &str| Selector { include: vec![pattern.to_owned()], ..plain("/") };
    same(&only("d/*.c"), &["d/", "d/a.c=1", "d/b=1"], &["d/", "d/a.c=1", "d/b=2", "c=3"]);
    differ(&only("d/*.c"), &["d/", "d/a.c=1"], &["d/", "d/a.c=2"]);
    // The directories above the selected files count with their headers.
    differ(&only("d/*.c"), &["d*755/", "d/a.c=1"], &["d*700/", "d/a.c=1"]);
    let required = Selector { required: vec!["/x".to_owned()], ..only("a") };
    assert_eq!(tree(&["a=1"]).digest(&[required]), Err(NotSelected::Absent("/x".to_owned())));
}

#[test]
fn everything_is_everything() {
    let all = Selector::everything();
    differ(&all, &["a=1"], &["a=2"]);
    differ(&all, &["a=1"], &["b=1"]);
    differ(&all, &["d/", "d/e/", "d/e/f=1"], &["d/", "d/e/", "d/e/f=2"]);
    same(&all, &["a=1", "b=2"], &["b=2", "a=1"]);
}
