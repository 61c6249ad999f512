//! Copies: the destination, the selected files, and their metadata there.

use super::*;

#[test]
fn where_a_copy_lands() {
    let context = Context::of(&["f", "d/:700", "d/f:600", "d/e/:750", "d/e/g", "l -> f", "dl -> d", "gone -> nowhere"]);
    let below = base(&[
        "app/:750:3:4",
        "app/e/:700:5:6",
        "file",
        "tolink -> app",
        "abs -> /app/e",
        "chain -> tolink/e",
        "dangling -> new/there",
        "flink -> file",
        "app/inner -> /etc",
        "up -> ../app",
    ]);
    let f = "644 0:0 <f";
    let cases: &[(&str, &str, &[&str])] = &[
        ("/f", "/x", &[&format!("x {f}")]),
        ("/f", "/x/", &["x 755 0:0 / @now", &format!("x/f {f}")]),
        ("/f", "/x/.", &["x 755 0:0 / @now", &format!("x/f {f}")]),
        ("/f", "/", &[&format!("f {f}")]),
        ("/f", "/app", &["app 750 3:4 / @now", &format!("app/f {f}")]),
        ("/f", "/app/y", &["app 750 3:4 / @now", &format!("app/y {f}")]),
        ("/f", "/app/e/y", &["app 750 3:4 / @7", "app/e 700 5:6 / @now", &format!("app/e/y {f}")]),
        ("/f", "/n/o/p", &["n 755 0:0 / @now", "n/o 755 0:0 / @now", &format!("n/o/p {f}")]),
        // Links: to a directory, absolute, in a chain, to a missing file, to a file.
        ("/f", "/tolink", &["app 750 3:4 / @now", &format!("app/f {f}")]),
        ("/f", "/tolink/", &["app 750 3:4 / @now", &format!("app/f {f}")]),
        ("/f", "/abs/y", &["app 750 3:4 / @7", "app/e 700 5:6 / @now", &format!("app/e/y {f}")]),
        ("/f", "/chain/y", &["app 750 3:4 / @7", "app/e 700 5:6 / @now", &format!("app/e/y {f}")]),
        ("/f", "/up/y", &["app 750 3:4 / @now", &format!("app/y {f}")]),
        ("/f", "/dangling/", &["new 755 0:0 / @now", "new/there 755 0:0 / @now", &format!("new/there/f {f}")]),
        ("/f", "/dangling", &["new 755 0:0 / @now", &format!("new/there {f}")]),
        ("/f", "/flink", &[&format!("file {f}")]),
        ("/f", "/file", &[&format!("file {f}")]),
        ("/f", "/file/", &["!not a directory"]),
        ("/f", "/file/x", &["!not a directory"]),
        // The copy follows the link and keeps its name.
        ("/l", "/x/", &["x 755 0:0 / @now", &format!("x/l {f}")]),
        ("/gone", "/x", &["!not found"]),
        ("/none", "/x", &["!not found"]),
        ("/none/", "/x", &["!not found"]),
        // Directories: the top directory's own metadata is not copied, but all its content is.
        ("/d", "/x", &["x 755 0:0 /", "x/e 750 0:0 /", "x/e/g 644 0:0 <d/e/g", "x/f 600 0:0 <d/f"]),
        ("/d/", "/x/", &["x 755 0:0 /", "x/e 750 0:0 /", "x/e/g 644 0:0 <d/e/g", "x/f 600 0:0 <d/f"]),
        ("/dl", "/x", &["x 755 0:0 /", "x/e 750 0:0 /", "x/e/g 644 0:0 <d/e/g", "x/f 600 0:0 <d/f"]),
        ("/d", "/app", &["app 750 3:4 /", "app/e 750 0:0 /", "app/e/g 644 0:0 <d/e/g", "app/f 600 0:0 <d/f"]),
        ("/d", "/file", &["!cannot copy to non-directory: /file"]),
        ("/d/e", "/", &["g 644 0:0 <d/e/g"]),
    ];
    for (src, dest, expected) in cases {
        expect(&copies(vec![copy(src, dest)]), &below, &context, expected);
    }
}

#[test]
fn what_is_met_deeper() {
    let context = Context::of(&["d/a/b", "d/l -> a", "f", "k/a"]);
    // A file or a link replaces anything but a directory.
    for (lower, expected) in [
        (&["x/", "x/a -> /etc"][..], &["!cannot copy to non-directory: /x/a"][..]),
        (&["x/", "x/a"], &["!cannot copy to non-directory: /x/a"]),
        (&["x/", "x/a/", "x/a/b/"], &["!cannot replace to directory /x/a/b with file"]),
        (&["x/", "x/l/"], &["!cannot replace to directory /x/l with file"]),
        (&["x/", "x/a/", "x/a/b!"], &["x 755 0:0 /", "x/a 755 0:0 /", "x/a/b 644 0:0 <d/a/b", "x/l 777 0:0 -> a"]),
        (
            &["x/", "x/a/:700:1:1", "x/a/b -> y", "x/l"],
            &["x 755 0:0 /", "x/a 755 0:0 /", "x/a/b 644 0:0 <d/a/b", "x/l 777 0:0 -> a"],
        ),
    ] {
        expect(&copies(vec![copy("/d", "/x")]), &base(lower), &context, expected);
    }
    // The link is in the destination: a copy to this name does not follow it.
    expect(&copies(vec![copy("/f", "/x/")]), &base(&["x/", "x/f -> ../y"]), &context, &["x 755 0:0 / @now", "x/f 644 0:0 <f"]);
    // Parents that no layer describes.
    let implied = PathIndex::from_layers([
        &LayerIndex { entries: [("x".to_owned(), PathEntry::directory(0o700, (0, 0), 1))].into(), ..LayerIndex::default() },
        &LayerIndex {
            entries: [("x".to_owned(), PathEntry { implied: true, ..PathEntry::directory(0o755, (0, 0), 0) })].into(),
            ..LayerIndex::default()
        },
    ]);
    expect(&copies(vec![copy("/f", "/x/")]), &implied, &context, &["?no layer below"]);
    expect(&copies(vec![copy("/f", "/y")]), &implied, &context, &["y 644 0:0 <f"]);
    // New directories in a directory that passes on its group.
    expect(&copies(vec![copy("/f", "/s/n/")]), &base(&["s/:2755:0:9"]), &context, &["?has the setgid bit"]);
    expect(&copies(vec![copy("/f", "/s/n")]), &base(&["s/:2755:0:9"]), &context, &["s 2755 0:9 / @now", "s/n 644 0:0 <f"]);
    // `--link`, and LLB.
    let replacing = |src: &str, dest: &str| pb::FileActionCopy { always_replace_existing_dest_paths: true, ..copy(src, dest) };
    expect(&copies(vec![replacing("/d", "/x")]), &base(&["x/", "x/a"]), &context, &["?replaces a path"]);
    expect(
        &copies(vec![copy("/f", "/x/a"), replacing("/d", "/x")]),
        &base(&[]),
        &context,
        &["x 755 0:0 /", "x/a 755 0:0 /", "x/a/b 644 0:0 <d/a/b", "x/l 777 0:0 -> a"],
    );
    expect(&copies(vec![replacing("/k", "/x")]), &base(&["x/", "x/a/", "x/a/b"]), &context, &["x 755 0:0 /", "x/a 644 0:0 <k/a"]);
    // Its own metadata is copied if not only its content is copied.
    let whole = pb::FileActionCopy { dir_copy_contents: false, ..copy("/k", "/y/") };
    expect(&copies(vec![whole]), &base(&[]), &context, &["y 755 0:0 / @now", "y/k 755 0:0 /", "y/k/a 644 0:0 <k/a"]);
    let strict = pb::FileActionCopy { create_dest_path: false, ..copy("/f", "/none/x") };
    expect(&copies(vec![strict]), &base(&[]), &context, &["!failed to stat"]);
}

#[test]
fn wildcards_and_patterns() {
    let context = Context::of(&["a.txt", ".b.txt", "c.md", "d/a.txt", "d/e/f.txt", "d/e/g.md", "empty/"]);
    let cases: &[(&str, &str, &[&str])] = &[
        ("/*.txt", "/x/", &["x 755 0:0 / @now", "x/.b.txt 644 0:0 <.b.txt", "x/a.txt 644 0:0 <a.txt"]),
        ("/*/a.*", "/y", &["y 644 0:0 <d/a.txt"]),
        ("/*/e", "/x", &["x 755 0:0 /", "x/f.txt 644 0:0 <d/e/f.txt", "x/g.md 644 0:0 <d/e/g.md"]),
        ("/e*", "/x/", &["x 755 0:0 /"]),
        ("/none*", "/x/", &[]),
        ("/none/*", "/x/", &["!not found"]),
        ("/[", "/x/", &["?invalid pattern"]),
    ];
    for (src, dest, expected) in cases {
        expect(&copies(vec![copy(src, dest)]), &base(&[]), &context, expected);
    }
    let with = |include: &[&str], exclude: &[&str], dest: &str| pb::FileActionCopy {
        include_patterns: include.iter().map(|&pattern| pattern.to_owned()).collect(),
        exclude_patterns: exclude.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..copy("/", dest)
    };
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        // Parent directories are copied up only with a selected file in them.
        (&["d/e/*.md"], &[], &["x 755 0:0 / @now", "x/d 755 0:0 / @now", "x/d/e 755 0:0 / @now", "x/d/e/g.md 644 0:0 <d/e/g.md"]),
        (&["d"], &["**/*.txt"], &["x 755 0:0 / @now", "x/d 755 0:0 /", "x/d/e 755 0:0 /", "x/d/e/g.md 644 0:0 <d/e/g.md"]),
        (
            &[],
            &["d", "*.txt", "!d/e/f.txt", "empty"],
            &[
                "x 755 0:0 / @now",
                "x/c.md 644 0:0 <c.md",
                "x/d 755 0:0 / @now",
                "x/d/e 755 0:0 / @now",
                "x/d/e/f.txt 644 0:0 <d/e/f.txt",
            ],
        ),
    ];
    for (include, exclude, expected) in cases {
        expect(&copies(vec![with(include, exclude, "/x")]), &base(&[]), &context, expected);
    }
    // An existing directory gets another mode and keeps its owner.
    expect(
        &copies(vec![with(&["d/a.txt"], &[], "/x")]),
        &base(&["x/", "x/d/:700:5:6"]),
        &context,
        &["x 755 0:0 / @now", "x/d 755 5:6 / @now", "x/d/a.txt 644 0:0 <d/a.txt"],
    );
    let keeping = pb::FileActionCopy { required_paths: vec!["/d".to_owned()], ..with(&["d"], &[], "/x") };
    expect(&copies(vec![keeping]), &base(&[]), &context, &["?parents"]);
}

#[test]
fn modes_owners_and_times() {
    let context = Context::of(&["f", "s:4755", "d/e/f", "d/l -> f"]);
    let below = base(&[
        "etc/",
        "etc/passwd=root:x:0:0::/:/bin/sh\napp:x:10:11::/:/bin/sh\nodd:x:-2:1::/:\n",
        "etc/group=root:x:0:\nstaff:x:50:app\n",
        "x/:700:8:9",
    ]);
    let file = |copy: pb::FileActionCopy| copies(vec![copy]);
    let owned = |user, group| file(pb::FileActionCopy { owner: named(user, group), ..copy("/f", "/n/f") });
    for (user, group, expected) in [
        (Some("1000"), None, "1000:1000"),
        (Some("1000"), Some("7"), "1000:7"),
        (Some("app"), None, "10:11"),
        (Some("app"), Some("staff"), "10:50"),
        (None, Some("staff"), "0:50"),
        (None, Some("7"), "0:7"),
        (Some("unknown"), Some("unknown"), "0:0"),
        (None, None, "0:0"),
    ] {
        let expected = [format!("n 755 {expected} / @now"), format!("n/f 644 {expected} <f")];
        expect(&owned(user, group), &below, &context, &[&expected[0], &expected[1]]);
    }
    expect(&owned(Some("odd"), None), &below, &context, &["?no numeric ID"]);
    expect(&owned(Some("app"), None), &base(&[]), &context, &["?the file /etc/passwd"]);
    expect(&owned(Some("app"), None), &base(&["etc/", "etc/passwd"]), &context, &["?does not know the content"]);
    let linked = base(&["etc -> real", "real/", "real/passwd=app:x:3:4::/:\n"]);
    expect(&owned(Some("app"), None), &linked, &context, &["n 755 3:4 / @now", "n/f 644 3:4 <f"]);
    let elsewhere = pb::NamedUserOpt { name: "app".to_owned(), input: 1 };
    let user = Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(elsewhere)) });
    let elsewhere = pb::FileActionCopy { owner: Some(pb::ChownOpt { user, group: None }), ..copy("/f", "/f") };
    expect(&file(elsewhere), &below, &context, &["?in another image"]);

    let with = |mode: i32, src: &str, dest: &str| file(pb::FileActionCopy { mode, ..copy(src, dest) });
    expect(&with(0o600, "/f", "/y"), &below, &context, &["y 600 0:0 <f"]);
    expect(
        &with(0o711, "/d", "/x"),
        &below,
        &context,
        &["x 700 8:9 /", "x/e 711 0:0 /", "x/e/f 711 0:0 <d/e/f", "x/l 777 0:0 -> f"],
    );
    expect(&with(0o600, "/f", "/n/y"), &below, &context, &["?differ in the mode"]);
    expect(&with(0o755, "/f", "/n/y"), &below, &context, &["n 755 0:0 / @now", "n/y 755 0:0 <f"]);
    expect(&with(0o4755, "/f", "/y"), &below, &context, &["?setuid, setgid or sticky"]);
    expect(&with(0o755, "/s", "/y"), &below, &context, &["?setuid"]);
    expect(&file(copy("/s", "/y")), &below, &context, &["y 4755 0:0 <s"]);
    expect(&file(pb::FileActionCopy { mode_str: "u+x".to_owned(), ..copy("/f", "/y") }), &below, &context, &["?symbolic"]);

    let timed = |src: &str, dest: &str| file(pb::FileActionCopy { timestamp: 5_999_999_999, ..copy(src, dest) });
    expect(&timed("/f", "/n/o/y"), &below, &context, &["n 755 0:0 / @5", "n/o 755 0:0 / @5", "n/o/y 644 0:0 <f @5"]);
    expect(&timed("/d/e", "/x"), &below, &context, &["x 700 8:9 / @5", "x/f 644 0:0 <d/e/f @5"]);
}

#[test]
fn hard_links_stay_within_one_source() {
    let context = Context::of(&["d/b", "d/c = d/b", "e = d/b", "d-/x"]);
    expect(&copies(vec![copy("/d", "/x")]), &base(&[]), &context, &["x 755 0:0 /", "x/b 644 0:0 <d/b", "x/c 644 0:0 = x/b"]);
    expect(
        &copies(vec![copy("/d/c", "/x/"), copy("/e", "/x/")]),
        &base(&[]),
        &context,
        &["x 755 0:0 / @now", "x/c 644 0:0 <d/b", "x/e 644 0:0 <d/b"],
    );
    // The copy overwrites the first name; the second still has the old file.
    let again = copies(vec![copy("/", "/x"), copy("/d-/x", "/x/d/b")]);
    let expected = [
        "x 755 0:0 / @now",
        "x/d 755 0:0 / @now",
        "x/d/b 644 0:0 <d-/x",
        "x/d/c 644 0:0 <d/b",
        "x/d- 755 0:0 /",
        "x/d-/x 644 0:0 <d-/x",
        "x/e 644 0:0 = x/d/c",
    ];
    expect(&again, &base(&[]), &context, &expected);
}

#[test]
fn what_add_may_unpack_is_not_sure() {
    let context = Context::of(&["text", "a.tar=BZh91AY", "d/a.gz=BZh91AY", "l -> a.tar"]);
    let add = |src: &str| copies(vec![pb::FileActionCopy { attempt_unpack_docker_compatibility: true, ..copy(src, "/x/") }]);
    expect(&add("/text"), &base(&[]), &context, &["x 755 0:0 / @now", "x/text 644 0:0 <text"]);
    expect(&add("/d"), &base(&[]), &context, &["x 755 0:0 /", "x/a.gz 644 0:0 <d/a.gz"]);
    for archive in ["/a.tar", "/*.tar", "/l", "/d/a.gz", "/*"] {
        expect(&add(archive), &base(&[]), &context, &["?may be an archive"]);
    }
    // A file that becomes an archive later.
    let assembled = assembled(&add("/text"), &base(&[]), &context).unwrap();
    fs::write(context.folder.path().join("text"), "BZh9").unwrap();
    let error = assembled.write_tar(std::io::sink(), NOW, &mut |_, _, _| ()).unwrap_err();
    assert!(error.to_string() == "text: its content changed", "{error}");
}
