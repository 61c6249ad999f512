//! Operations without a source, links in paths, and sequences of actions.

use super::*;

#[test]
fn directories_files_and_links_are_made() {
    use pb::file_action::Action::{Mkdir, Mkfile, Rm, Symlink};
    let context = Context::of(&["f"]);
    let below = base(&["w/:750:1:2", "w/x/", "w/x/y", "f", "l -> w", "s/:2755:0:5", "etc/", "etc/passwd=app:x:3:4::/:\n"]);
    let mkdir = |path: &str, owner| {
        let (path, mode) = (path.to_owned(), 0o755);
        op(vec![Mkdir(pb::FileActionMkDir { path, mode, make_parents: true, owner, timestamp: -1 })])
    };
    let app = || named(Some("app"), None);
    expect(&mkdir("/w", None), &below, &context, &[]);
    expect(&mkdir("/l/", app()), &below, &context, &[]);
    expect(&mkdir("/", app()), &below, &context, &[]);
    expect(&mkdir("/f", None), &below, &context, &["!not a directory"]);
    expect(&mkdir("/s/n", None), &below, &context, &["?has the setgid bit"]);
    let deep = ["w 750 1:2 / @now", "w/a 755 3:4 / @now", "w/a/b 755 3:4 / @now"];
    expect(&mkdir("/l/a/b", app()), &below, &context, &deep);

    let single = |path: &str, mode| {
        let path = path.to_owned();
        op(vec![Mkdir(pb::FileActionMkDir { path, mode, make_parents: false, owner: None, timestamp: 9_000_000_000 })])
    };
    expect(&single("/n", 0o700), &below, &context, &["n 700 0:0 / @9"]);
    expect(&single("/f", 0o700), &below, &context, &[]);
    expect(&single("/n/o", 0o700), &below, &context, &["!no such file"]);
    expect(&single("/n", 0o777), &below, &context, &["?umask"]);

    let mkfile = |path: &str, mode| {
        let (path, data) = (path.to_owned(), b"text".to_vec());
        op(vec![Mkfile(pb::FileActionMkFile { path, mode, data, owner: None, timestamp: -1 })])
    };
    expect(&mkfile("/n", 0o644), &below, &context, &["n 644 0:0 =text @now"]);
    expect(&mkfile("/l/n", 0o600), &below, &context, &["w 750 1:2 / @now", "w/n 600 0:0 =text @now"]);
    expect(&mkfile("/n", 0o666), &below, &context, &["?umask"]);
    expect(&mkfile("/f", 0o644), &below, &context, &["?changes the existing file"]);
    expect(&mkfile("/w", 0o644), &below, &context, &["!is a directory"]);
    expect(&mkfile("/no/n", 0o644), &below, &context, &["!no such file"]);

    let link = |newpath: &str| {
        let (oldpath, newpath) = ("../t".to_owned(), newpath.to_owned());
        op(vec![Symlink(pb::FileActionSymlink { oldpath, newpath, owner: named(Some("5"), None), timestamp: -1 })])
    };
    expect(&link("/w/n"), &below, &context, &["w 750 1:2 / @now", "w/n 777 5:5 -> ../t @now"]);
    expect(&link("/f"), &below, &context, &["!file exists"]);

    let rm = |path: &str, allow_not_found| Rm(pb::FileActionRm { path: path.to_owned(), allow_not_found, allow_wildcard: false });
    let removed = |path, allow| op(vec![rm(path, allow)]);
    expect(&removed("/w/x/y", false), &below, &context, &["w 750 1:2 / @7", "w/x 755 0:0 / @now", "w/x/y gone"]);
    expect(&removed("/l/x", false), &below, &context, &["w 750 1:2 / @now", "w/x gone"]);
    expect(&removed("/none", true), &below, &context, &[]);
    expect(&removed("/none", false), &below, &context, &["?does not exist"]);
    expect(&removed("/l", false), &below, &context, &["?the link"]);
    expect(&removed("/", false), &below, &context, &["!empty path"]);
    expect(
        &op(vec![rm("/w/x/y", false), rm("/w/x", false), rm("/f", false)]),
        &below,
        &context,
        &["f gone", "w 750 1:2 / @now", "w/x gone"],
    );
    let copied = pb::file_action::Action::Copy(copy("/f", "/f"));
    expect(&op(vec![rm("/f", false), copied.clone()]), &below, &context, &["f 644 0:0 <f"]);
    expect(&op(vec![copied, rm("/f", false)]), &base(&[]), &context, &[]);
}

#[test]
fn links_are_followed_as_buildkit_follows_them() {
    let context = Context::of(&["f"]);
    let below =
        base(&["a/", "a/b/", "one -> a/b", "lex -> one/../c", "two -> lone", "lone -> a/b", "a/b/up -> ../z", "loop -> loop"]);
    let f = "644 0:0 <f";
    for (dest, expected) in [
        // In the text, `one/..` cancels out: it is not the directory above `a/b`.
        ("/lex", &[&*format!("c {f}")][..]),
        ("/one/x", &["a 755 0:0 / @7", "a/b 755 0:0 / @now", &format!("a/b/x {f}")]),
        ("/one/up", &["a 755 0:0 / @now", &format!("a/z {f}")]),
        // The same path through two links leads elsewhere, because BuildKit has followed only one of them when it reaches `..`.
        ("/two/up", &[&format!("z {f}")]),
        ("/loop/x", &["!too many links"]),
    ] {
        expect(&copies(vec![copy("/f", dest)]), &below, &context, expected);
    }
    let host = base(&["a -> /b", "c -> a", "b/", "b/x -> y"]);
    expect(&copies(vec![copy("/f", "/c/x")]), &host, &context, &["?behind nested symbolic links"]);
}

#[test]
fn what_does_not_follow_is_not_sure() {
    let context = Context::of(&["f"]);
    let plain = copies(vec![copy("/f", "/x"), copy("/f", "/y")]);
    let change = |change: &dyn Fn(&mut Vec<pb::FileAction>)| {
        let mut op = plain.clone();
        if let Some(pb::op::Op::File(file)) = &mut op.op {
            change(&mut file.actions);
        }
        op
    };
    expect(&plain, &base(&["x"]), &context, &["x 644 0:0 <f", "y 644 0:0 <f"]);
    expect(&change(&|actions| actions[1].input = 0), &base(&[]), &context, &["?not in sequence"]);
    expect(&change(&|actions| actions[0].output = 1), &base(&[]), &context, &["?not in sequence"]);
    expect(&change(&|actions| actions[1].secondary_input = 2), &base(&[]), &context, &["?not a build context"]);
    expect(&change(&|actions| actions[1].secondary_input = 0), &base(&[]), &context, &["?not a build context"]);
    // On an empty state, whatever state the test passes.
    expect(&change(&|actions| actions[0].input = -1), &base(&["x/"]), &context, &["x 644 0:0 <f", "y 644 0:0 <f"]);
    expect(&pb::Op::default(), &base(&[]), &context, &["?not a file operation"]);
    let odd = Context::of(&[".wh.f"]);
    expect(&copies(vec![copy("/", "/x")]), &base(&[]), &odd, &["?cannot contain"]);
    let pipe =
        Context { entries: vec![Entry { kind: crate::build_context::EntryKind::Pipe, ..context.entries[0].clone() }], ..context };
    expect(&copies(vec![copy("/f", "/x")]), &base(&[]), &pipe, &["?pipe"]);
}

#[test]
fn a_heredoc_is_copied() {
    let context = Context::of(&["f"]);
    let made = pb::FileActionMkFile { path: "one".to_owned(), mode: 0o644, data: b"text".to_vec(), owner: None, timestamp: -1 };
    let mut on_nothing = op(vec![pb::file_action::Action::Mkfile(made)]);
    on_nothing.inputs.clear();
    if let Some(pb::op::Op::File(file)) = &mut on_nothing.op {
        file.actions[0].input = -1;
    }
    let made = assembled(&on_nothing, &base(&[]), &context).unwrap();
    let copied = copies(vec![pb::FileActionCopy { mode: 0o755, ..copy("one", "/x/") }]);
    let assembled = assemble_layer(&copied, &base(&["x/"]), &|input| (input == 1).then_some(Source::Made(&made))).unwrap();
    assert_eq!(lines(&assembled), ["x 755 0:0 / @now", "x/one 755 0:0 =text @now"]);
    checks(&assembled, &context);
}
