//! Layers: their tars, and comparing them with a daemon's layer.

use super::*;

#[test]
fn a_tar_carries_what_no_plain_header_does() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(60));
    let mut context = Context::of(&[&long, "ä", "l", "cap"]);
    fs::remove_file(context.folder.path().join("l")).unwrap();
    for entry in &mut context.entries {
        if entry.path == "l" {
            (entry.kind, entry.size) = (crate::build_context::EntryKind::Link("t".repeat(150)), 0);
        } else if entry.path == "cap" {
            entry.xattrs = vec![("security.capability".to_owned(), vec![1; 20])];
        }
    }
    let op = copies(vec![pb::FileActionCopy { owner: named(Some("4294967294"), None), ..copy("/", "/x") }]);
    let mut assembled = assembled(&op, &base(&[]), &context).unwrap();
    let cap = assembled.entries.get_mut("x/cap").unwrap();
    assert_eq!(cap.capability, None, "a context's never reach a layer");
    cap.capability = Some([1, 0, 0, 2, 0xff].repeat(4));
    checks(&assembled, &context);
    let tree = ContextTree::from_tar(&tar_of(&assembled, &mut BTreeMap::new())[..]).unwrap();
    let node = tree.get("x/cap").unwrap();
    assert_eq!(node.owner, (4_294_967_294, 4_294_967_294));
    assert_eq!(node.xattrs.keys().collect::<Vec<_>>(), ["security.capability"]);
    assert!(tree.get(&format!("x/{long}")).is_some() && tree.get("x/ä").is_some());
    assert_eq!(tree.get("x/l").unwrap().kind, crate::build_context::NodeKind::Link("t".repeat(150)));
}

#[test]
fn the_bytes_are_these_for_ever() {
    let context = Context::of(&["d/a", "d/a-b", "d/a.d/x", "d/c = d/a", "d/l -> a"]);
    let assembled = assembled(&copies(vec![copy("/d", "/x")]), &base(&["x/:700:1:2", "x/c"]), &context).unwrap();
    let tar = tar_of(&assembled, &mut BTreeMap::new());
    assert_eq!(Digest::hash(&tar).to_string(), "sha256:7a28f87f39e7509bcc383dbae0e6708e8466658a681fa0e1eca453dbc6f8e700");
}

#[test]
fn files_that_change_are_told() {
    let context = Context::of(&["d/a=12345", "d/b"]);
    let assembled = assembled(&copies(vec![copy("/d", "/x")]), &base(&[]), &context).unwrap();
    for bytes in ["1234", "123456", ""] {
        fs::write(context.folder.path().join("d/a"), bytes).unwrap();
        let error = assembled.write_tar(std::io::sink(), NOW, &mut |_, _, _| ()).unwrap_err();
        assert!(error.to_string() == "d/a: its content changed", "{error}");
    }
    fs::remove_file(context.folder.path().join("d/a")).unwrap();
    let error = assembled.write_tar(std::io::sink(), NOW, &mut |_, _, _| ()).unwrap_err();
    assert!(error.to_string() == "d/a: it is no longer readable", "{error}");
}

#[test]
fn a_difference_is_told() {
    let context = Context::of(&["d/a=1", "d/l -> a", "d/e/f"]);
    let below = base(&["x/:700:1:2", "x/a", "x/gone"]);
    let remove = pb::FileActionRm { path: "/x/gone".to_owned(), ..pb::FileActionRm::default() };
    let actions = vec![pb::file_action::Action::Copy(copy("/d", "/x")), pb::file_action::Action::Rm(remove)];
    let assembled = assembled(&op(actions), &below, &context).unwrap();
    let mut hashed = BTreeMap::new();
    let tar = tar_of(&assembled, &mut hashed);
    let tree = || ContextTree::from_tar(&tar[..]).unwrap();
    let differs = |tree: &ContextTree| assembled.differs(tree, &|_, path| hashed.get(path).cloned());
    let rebuilt = |change: &dyn Fn(&str, crate::build_context::Node) -> Option<crate::build_context::Node>| {
        let mut out = ContextTree::default();
        for (path, node) in tree().iter() {
            if let Some(node) = change(&path, node.clone()) {
                out.insert(&path, node);
            }
        }
        out
    };
    let at = |name: &'static str, change: &'static dyn Fn(&mut crate::build_context::Node)| {
        rebuilt(&move |path, mut node| {
            if path == name {
                change(&mut node);
            }
            Some(node)
        })
    };
    assert_eq!(differs(&tree()), None);
    for (tree, expected) in [
        (at("x/e", &|node| node.mode = 0o700), "x/e: mode 755 here, 700"),
        (at("x/e", &|node| node.owner.1 = 7), "x/e: owner 0:0 here, 0:7"),
        (
            at("x/l", &|node| node.kind = crate::build_context::NodeKind::Link("b".to_owned())),
            "x/l: its link target is a here and b",
        ),
        (at("x/a", &|node| node.kind = crate::build_context::NodeKind::File(Digest::hash(b"2"))), "x/a: the content differs"),
        (at("x/a", &|node| node.kind = crate::build_context::NodeKind::Directory), "x/a: a file here, a directory"),
        (at("x/a", &|node| drop(node.xattrs.insert("security.capability".to_owned(), vec![1]))), "x/a: the capabilities differ"),
        (rebuilt(&|path, node| (path != "x/l").then_some(node)), "x/l: not in"),
        (rebuilt(&|path, node| (path != "x/.wh.gone").then_some(node)), "x/.wh.gone: not in"),
    ] {
        let told = differs(&tree).unwrap();
        assert!(told.starts_with(expected), "{told}");
    }
    // The daemon may omit unchanged files.
    assert_eq!(differs(&rebuilt(&|path, node| (!matches!(path, "x" | "x/a")).then_some(node))), None);
    let mut more = tree();
    more.insert("y", tree().get("x/a").unwrap().clone());
    assert_eq!(differs(&more).unwrap(), "y: only in the daemon's layer");
}
