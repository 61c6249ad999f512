//! Graphs that differ in one thing: every kind of key input has a test that fails if the key omits it.

use std::collections::HashSet;

use super::super::testing::Made;
use super::*;
use crate::domain::DiffId;

fn mount(input: i64, dest: &str) -> pb::Mount {
    pb::Mount { input, dest: dest.to_owned(), output: if dest == "/" { 0 } else { -1 }, ..pb::Mount::default() }
}

fn run(args: &[&str]) -> pb::ExecOp {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let meta = pb::Meta { args, env: vec!["A=1".to_owned(), "B=2".to_owned()], cwd: "/".to_owned(), ..pb::Meta::default() };
    pb::ExecOp { meta: Some(meta), mounts: vec![mount(0, "/")], ..pb::ExecOp::default() }
}

fn copy(from: i64, src: &str) -> pb::FileAction {
    let copy = pb::FileActionCopy { src: src.to_owned(), dest: "/d/".to_owned(), follow_symlink: true, ..Default::default() };
    pb::FileAction { input: 0, secondary_input: from, output: 0, action: Some(pb::file_action::Action::Copy(copy)) }
}

/// The content of a selection is its paths, unless the test sets another.
#[derive(Default)]
struct Known {
    content: HashMap<String, &'static str>,
    copied: HashMap<CopiedContentKey, Digest>,
    base: &'static str,
    holds: HashMap<Digest, ResolvedSource>,
}

impl Facts for Known {
    fn image(&self, source: &Op) -> Result<Option<ChainId>, String> {
        let Some(pb::op::Op::Source(source)) = &source.op.op else { return Err("no source".to_owned()) };
        if source.identifier.ends_with("absent") {
            return Err("no answer".to_owned());
        }
        Ok(ChainId::of_layers(&[DiffId::hash(self.base.as_bytes())]))
    }

    fn local(&self, _: &Op, selectors: &[Selector]) -> Result<Digest, String> {
        let content = |selector: &Selector| self.content.get(&selector.path).copied().unwrap_or("as it was");
        Ok(Digest::hash(selectors.iter().map(content).collect::<Vec<_>>().join("\0").as_bytes()))
    }

    fn remote(&self, source: &Op) -> Result<ResolvedSource, String> {
        self.holds.get(&source.digest).cloned().ok_or_else(|| "nobody asked".to_owned())
    }

    fn copied_content(&self, copied: &CopySource) -> Option<Digest> {
        self.copied.get(copied.key.as_ref()?).cloned()
    }
}

/// Returns the key of this one step on a base image and a directory.
fn key_with(facts: &Known, op: pb::op::Op) -> Key {
    let mut made = Made::default();
    let (base, local) = (made.source("docker-image://base"), made.source("local://context"));
    let result = made.on(&[&base, &local], op);
    let graph = made.graph(&result);
    Keys::new(&graph, facts).state(&result)
}

fn key(op: pb::op::Op) -> StepKey {
    match key_with(&Known::default(), op) {
        Key::Known(key) => key,
        other => panic!("no key: {other:?}"),
    }
}

fn exec(change: impl FnOnce(&mut pb::ExecOp)) -> pb::op::Op {
    let mut op = run(&["sh", "-c", "make"]);
    change(&mut op);
    pb::op::Op::Exec(op)
}

fn meta(change: impl FnOnce(&mut pb::Meta)) -> pb::op::Op {
    exec(|op| change(op.meta.as_mut().expect("a meta")))
}

fn mounted(mount: pb::Mount) -> pb::op::Op {
    exec(|op| op.mounts.push(mount))
}

#[test]
fn everything_that_a_command_sees_is_in_its_key() {
    let other = [
        ("arguments", meta(|meta| meta.args.push("x".to_owned()))),
        ("environment", meta(|meta| meta.env.push("C=3".to_owned()))),
        ("its order", meta(|meta| meta.env.reverse())),
        ("directory", meta(|meta| meta.cwd = "/x".to_owned())),
        ("user", meta(|meta| meta.user = "x".to_owned())),
        ("hostname", meta(|meta| meta.hostname = "x".to_owned())),
        ("hosts", meta(|meta| meta.extra_hosts.push(pb::HostIp { host: "x".to_owned(), ip: String::new() }))),
        ("ulimits", meta(|meta| meta.ulimit.push(pb::Ulimit { name: "nofile".to_owned(), soft: 1, hard: 2 }))),
        ("cgroup", meta(|meta| meta.cgroup_parent = "x".to_owned())),
        ("network", exec(|op| op.network = pb::NetMode::None.into())),
        ("security", exec(|op| op.security = pb::SecurityMode::Insecure.into())),
        ("secret variables", exec(|op| op.secretenv.push(pb::SecretEnv { name: "X".to_owned(), ..Default::default() }))),
        ("a mount", mounted(mount(1, "/m"))),
        ("where it is", mounted(mount(1, "/n"))),
        ("whether it can be written", mounted(pb::Mount { readonly: true, ..mount(1, "/m") })),
        ("its kind", mounted(pb::Mount { mount_type: pb::MountType::Tmpfs.into(), ..mount(-1, "/m") })),
        ("a cache", mounted(cache("id", 0))),
        ("its id", mounted(cache("other", 0))),
        ("its sharing", mounted(cache("id", 2))),
        ("a secret", mounted(secret("id", 0, false))),
        ("its id", mounted(secret("other", 0, false))),
        ("its mode", mounted(secret("id", 0o400, false))),
        ("whether it must be there", mounted(secret("id", 0, true))),
    ];
    let mut seen = HashMap::from([(key(exec(|_| ())), "nothing")]);
    for (what, op) in other {
        if let Some(same) = seen.insert(key(op), what) {
            panic!("{what} and {same} have one key");
        }
    }
}

fn cache(id: &str, sharing: i32) -> pb::Mount {
    let cache = pb::CacheOpt { id: id.to_owned(), sharing };
    pb::Mount { mount_type: pb::MountType::Cache.into(), cache_opt: Some(cache), ..mount(-1, "/m") }
}

fn secret(id: &str, mode: u32, optional: bool) -> pb::Mount {
    let secret = pb::SecretOpt { id: id.to_owned(), mode, optional, ..pb::SecretOpt::default() };
    pb::Mount { mount_type: pb::MountType::Secret.into(), secret_opt: Some(secret), ..mount(-1, "/m") }
}

#[test]
fn what_buildkit_leaves_out_is_left_out() {
    let plain = key(exec(|_| ()));
    let proxy = pb::ProxyEnv { http_proxy: "http://proxy".to_owned(), ..pb::ProxyEnv::default() };
    assert_eq!(key(meta(|meta| meta.proxy_env = Some(proxy))), plain);
    let host = |ip: &str| meta(|meta| meta.extra_hosts.push(pb::HostIp { host: "x".to_owned(), ip: ip.to_owned() }));
    assert_eq!(key(host("1.2.3.4")), key(host("4.3.2.1")));
}

#[test]
fn a_field_that_nobody_knows_makes_another_key() {
    let (mut one, mut other) = (Made::default(), Made::default());
    let (base, same) = (one.source("docker-image://base"), other.source("docker-image://base"));
    let known = one.on(&[&base], exec(|_| ()));
    let mut bytes = one.0.def.last().expect("a step").clone();
    // Field 90 of the operation itself, with one byte in it.
    bytes.extend([0xd2, 0x05, 1, 7]);
    let unknown = Input { step: Digest::hash(&bytes), output: 0 };
    other.0.def.push(bytes);
    assert_eq!(base, same);
    let keys = [(one, known), (other, unknown)].map(|(made, result)| {
        let graph = made.graph(&result);
        Keys::new(&graph, &Known::default()).state(&result)
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_base_is_its_layers_and_a_copy_is_its_content() {
    let file = || pb::op::Op::File(pb::FileOp { actions: vec![copy(1, "/a/x")] });
    let plain = Known::default();
    assert_ne!(key_with(&plain, file()), key_with(&Known { base: "moved", ..Known::default() }, file()));
    let content = |path: &str| Known { content: HashMap::from([(path.to_owned(), "other")]), ..Known::default() };
    assert_ne!(key_with(&plain, file()), key_with(&content("/a/x"), file()));
    assert_eq!(key_with(&plain, file()), key_with(&content("/a/y"), file()));
    // The source's directory does not matter, only its name.
    let moved = |src: &str| key(pb::op::Op::File(pb::FileOp { actions: vec![copy(1, src)] }));
    assert_eq!(moved("/a/x"), moved("/b/x"));
    assert_ne!(moved("/a/x"), moved("/a/y"));
    assert_ne!(moved("/a/x"), key(pb::op::Op::File(pb::FileOp { actions: vec![copy(1, "/a/x"), copy(1, "/a/x")] })));
    let changed = |change: fn(&mut pb::FileActionCopy)| {
        let mut action = copy(1, "/a/x");
        if let Some(pb::file_action::Action::Copy(copy)) = &mut action.action {
            change(copy);
        }
        key(pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    };
    let others = [
        changed(|copy| copy.dest = "/e".to_owned()),
        changed(|copy| copy.mode = 0o700),
        changed(|copy| copy.dir_copy_contents = true),
        changed(|copy| copy.exclude_patterns = vec!["*.md".to_owned()]),
        changed(|copy| copy.timestamp = 1),
        changed(|copy| copy.owner = Some(pb::ChownOpt { user: Some(user(1)), group: None })),
        changed(|copy| copy.owner = Some(pb::ChownOpt { user: None, group: Some(user(1)) })),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, moved("/a/x"), "{at}");
        assert!(!others[..at].contains(other), "{at}");
    }
}

fn user(id: u32) -> pb::UserOpt {
    pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) }
}

/// The last of two files with one name wins, so their order counts.
#[test]
fn the_order_of_a_copys_arguments_counts() {
    let facts = Known { content: HashMap::from([("/a/x".to_owned(), "a"), ("/b/x".to_owned(), "b")]), ..Known::default() };
    let of = |paths: [&str; 2]| {
        let second = pb::FileAction { input: 2, ..copy(1, paths[1]) };
        let first = pb::FileAction { output: -1, ..copy(1, paths[0]) };
        key_with(&facts, pb::op::Op::File(pb::FileOp { actions: vec![first, second] }))
    };
    assert_ne!(of(["/a/x", "/b/x"]), of(["/b/x", "/a/x"]));
}

#[test]
fn a_mount_is_its_content_only_where_nothing_else_can_come_out() {
    let select = |selector: &str, change: fn(&mut pb::Mount)| {
        let mut mount = pb::Mount { selector: selector.to_owned(), ..mount(1, "/m") };
        change(&mut mount);
        mounted(mount)
    };
    let content = |path: &str| Known { content: HashMap::from([(path.to_owned(), "other")]), ..Known::default() };
    let plain = Known::default();
    let bound = || select("/a", |_| ());
    assert_ne!(key_with(&plain, bound()), key_with(&content("/a"), bound()));
    assert_eq!(key_with(&plain, bound()), key_with(&content("/b"), bound()));
    // Changes to the mount end up in the result, together with the rest of the source.
    let kept = || select("/a", |mount| mount.output = 1);
    assert_ne!(key_with(&plain, kept()), key_with(&content("/"), kept()));
}

#[test]
fn what_comes_out_of_a_stage_is_waited_for_and_then_counts_by_content() {
    let graph = |command: &str| {
        let mut made = Made::default();
        let base = made.source("docker-image://base");
        let stage = made.on(&[&base], pb::op::Op::Exec(run(&[command])));
        let result = made.on(&[&base, &stage], pb::op::Op::File(pb::FileOp { actions: vec![copy(1, "/made")] }));
        (made.graph(&result), result)
    };
    let (built, result) = graph("make");
    let mut facts = Known::default();
    let keys = Keys::new(&built, &facts);
    let Key::Waits(copied) = keys.state(&result) else { panic!("{:?}", keys.state(&result)) };
    assert_eq!(keys.copy_sources(), std::slice::from_ref(&copied));
    let (again, same) = graph("make another way");
    let other = Keys::new(&again, &facts).copy_sources()[0].clone();
    assert_ne!(copied.key, other.key);
    // Both made the same file, so the next step is the same.
    for key in [copied.key, other.key] {
        facts.copied.insert(key.expect("a key"), Digest::hash(b"the file"));
    }
    let key = Keys::new(&built, &facts).state(&result);
    assert!(matches!(key, Key::Known(_)));
    assert_eq!(key, Keys::new(&again, &facts).state(&same));
    facts.copied.values_mut().for_each(|content| *content = Digest::hash(b"another"));
    assert_ne!(key, Keys::new(&built, &facts).state(&result));
}

#[test]
fn steps_that_differ_by_what_they_take_alone_have_that_in_common() {
    let key_without_copied_content = |stage: &'static str, file: &str, on: &'static str| {
        let mut made = Made::default();
        let base = made.source("docker-image://base");
        let stage = made.on(&[&base], pb::op::Op::Exec(run(&[stage])));
        let took = made.on(&[&base, &stage], pb::op::Op::File(pb::FileOp { actions: vec![copy(1, file)] }));
        let result = made.on(&[&took], pb::op::Op::Exec(run(&[on])));
        let keys = Keys::new(&made.graph(&result), &Known::default());
        assert_eq!(keys.key_without_copied_content(&stage), None, "nothing is taken there");
        (keys.key_without_copied_content(&took), keys.key_without_copied_content(&result))
    };
    let one = key_without_copied_content("make", "/made", "on");
    assert!(one.0.is_some() && one.1.is_some());
    assert_eq!(key_without_copied_content("make another way", "/made", "on"), one);
    assert_eq!(key_without_copied_content("make", "/made", "other").0, one.0);
    assert_ne!(key_without_copied_content("make", "/made", "other").1, one.1);
    assert_ne!(key_without_copied_content("make", "/another", "on").0, one.0);
}

#[test]
fn what_cannot_be_told_has_no_key() {
    for (identifier, known) in [
        ("docker-image://absent", false),
        ("https://host/file", false),
        ("git://host/repository#main", false),
        ("git://host/repository#0123456789abcdef0123456789abcdef01234567:sub", true),
        ("oci-layout://x", false),
    ] {
        let mut made = Made::default();
        let base = made.source(identifier);
        let result = made.on(&[&base], pb::op::Op::Exec(run(&["x"])));
        let graph = made.graph(&result);
        let key = Keys::new(&graph, &Known::default()).state(&result);
        assert_eq!(matches!(key, Key::Known(_)), known, "{identifier}: {key:?}");
    }
}

#[test]
fn what_is_elsewhere_is_what_it_was_found_to_be() {
    let key = |identifier: &str, attributes: &[(&str, &str)], holds: Option<ResolvedSource>| {
        let mut made = Made::default();
        let source = made.source_with(identifier, attributes);
        let graph = made.graph(&source);
        let holds = holds.map(|holds| (source.step.clone(), holds)).into_iter().collect();
        Keys::new(&graph, &Known { holds, ..Known::default() }).state(&source)
    };
    let name = [("http.filename", "a")];
    let file = |content: &[u8], modified: &str| {
        Some(ResolvedSource::File { content: Digest::hash(content), modified: modified.to_owned() })
    };
    let plain = key("https://host/a", &name, file(b"a", ""));
    assert!(matches!(plain, Key::Known(_)), "{plain:?}");
    assert_eq!(plain, key("http://mirror/a?b", &name, file(b"a", "")), "where it comes from does not matter");
    let others = [
        key("https://host/a", &name, file(b"b", "")),
        key("https://host/a", &name, file(b"a", "Tue, 03 Nov 2026 10:00:00 GMT")),
        key("https://host/a", &[("http.filename", "b")], file(b"a", "")),
        key("https://host/a", &[("http.filename", "a"), ("http.perm", "0644")], file(b"a", "")),
        key("https://host/a", &[("http.filename", "a"), ("http.uid", "1")], file(b"a", "")),
        key("https://host/a", &name, None),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, plain, "{at}");
        assert!(!others[..at].contains(other), "{at}");
    }
    let (one, two) = ("0123456789abcdef0123456789abcdef01234567", "1123456789abcdef0123456789abcdef01234567");
    let at = |fragment: &str, commit: Option<&str>| {
        key(&format!("git://host/r{fragment}"), &[], commit.map(|commit| ResolvedSource::Commit(commit.to_owned())))
    };
    assert_eq!(at("#main", Some(one)), at("", Some(one)));
    assert_eq!(at("#main:sub", Some(one)), at(&format!("#{one}:sub"), None));
    assert_ne!(at("#main", Some(one)), at("#main", Some(two)));
    assert_ne!(at("#main", Some(one)), at("#main:sub", Some(one)));
    assert!(matches!(at("#main", None), Key::Unknown(_)));
}

#[test]
fn a_graft_takes_the_place_of_what_led_to_a_state() {
    let mut made = Made::default();
    let base = made.source("docker-image://base");
    let first = made.on(&[&base], pb::op::Op::Exec(run(&["first"])));
    let second = made.on(&[&first], pb::op::Op::Exec(run(&["second"])));
    for (state, name) in [(&first, "[1/2] first"), (&second, "[2/2] second")] {
        let description = [("llb.customname".to_owned(), name.to_owned())].into();
        made.0.metadata.insert(state.step.to_string(), pb::OpMetadata { description, ..Default::default() });
    }
    let graph = made.graph(&second);
    let substitution = super::super::Substitution {
        identifier: "docker-image://127.0.0.1:1/x@sha256:00".to_owned(),
        attributes: [("image.resolvemode".to_owned(), "local".to_owned()), ("b".to_owned(), "c".to_owned())].into(),
        name: "restored".to_owned(),
    };
    let rewritten = graph.rewritten(&second, &HashMap::from([(first, substitution)]), &HashSet::new()).expect("grafted");
    let rewritten = Graph::new(rewritten.definition).expect("a graph");
    let names: Vec<&str> = rewritten.below(rewritten.result()).iter().map(|op| &*op.name).collect();
    assert_eq!(names, ["restored", "[2/2] second"]);
    assert_eq!(rewritten.base_images(), ["127.0.0.1:1/x@sha256:00"]);
    // Without substitutions, the result is the graph itself.
    let same =
        Graph::new(graph.rewritten(&second, &HashMap::new(), &HashSet::new()).expect("whole").definition).expect("a graph");
    assert_eq!(same.result(), graph.result());
}
