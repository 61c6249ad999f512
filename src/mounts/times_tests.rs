//! Tests the rules for times, against a model of machines with a tool that decides by time.

use proptest::prelude::*;

use super::*;
use crate::build_context::Node;

fn node(kind: NodeKind) -> Node {
    Node { kind, mode: 0o644, owner: (0, 0), xattrs: BTreeMap::new() }
}

fn tree(paths: &[(&str, NodeKind)]) -> Tree {
    let mut tree = Tree::default();
    paths.iter().for_each(|(path, kind)| tree.insert(path, node(kind.clone())));
    tree
}

fn file(text: &str) -> NodeKind {
    NodeKind::File(Digest::hash(text.as_bytes()))
}

/// Returns the times that a build gives to a tree, after one that had another.
fn chosen(before: &Tree, newest: Option<i64>, now: &Tree, seconds: i64) -> BTreeMap<String, i64> {
    let times = ContextTimes::record(&Contents::of([("context", before)]), None, |_, _| Some(1_500_000_001));
    let times = decide(&Before { times, newest }, &Contents::of([("context", now)]), seconds).expect("times");
    times.iter().map(|(_, path, sent)| (path.to_owned(), sent.time)).collect()
}

#[test]
fn same_content_keeps_its_time() {
    let before = tree(&[
        ("d", NodeKind::Directory),
        ("d/a", file("a")),
        ("d/b", file("b")),
        ("d/e", NodeKind::Directory),
        ("l", NodeKind::Link("a".to_owned())),
        ("p", NodeKind::Pipe),
    ]);
    let kept = 1_500_000_001;
    let mut mode = before.clone();
    mode.insert("d/a", Node { mode: 0o755, owner: (1, 1), ..node(file("a")) });
    assert!(chosen(&before, Some(9), &mode, 0).values().all(|time| *time == kept), "mode and owner do not count");
    for (path, kind, changed) in [
        ("d/a", file("b"), &["d/a"][..]),
        ("d/a", NodeKind::Link("file".to_owned()), &["d/a"]),
        ("d/e", file(""), &["d/e"]),
        ("d/n", file("a"), &["d", "d/n"]),
        ("d/e/n", file("a"), &["d/e", "d/e/n"]),
        ("n", file("a"), &["n"]),
        ("l", NodeKind::Link("b".to_owned()), &["l"]),
        ("l", file("a"), &["l"]),
    ] {
        let mut now = before.clone();
        now.insert(path, node(kind));
        let times = chosen(&before, Some(9), &now, 0);
        let other: Vec<&str> = times.iter().filter(|(_, time)| **time != kept).map(|(path, _)| &**path).collect();
        assert_eq!(other, changed, "{path}");
    }
}

#[test]
fn a_new_time_is_later_than_all() {
    let (before, now) = (tree(&[("a", file("a"))]), tree(&[("a", file("b"))]));
    for (newest, seconds, expected) in [
        (None, 0, 3),
        (Some(9), 0, 3),
        (Some(3_000_000_000), 0, 4),
        (Some(3_000_000_001), 0, 5),
        (Some(3_000_000_001), 5, 5),
        (Some(3_000_000_001), 70, 70),
    ] {
        assert_eq!(chosen(&before, newest, &now, seconds)["a"], expected * SECOND, "{newest:?} {seconds}");
    }
    let before = |time: i64| Before { times: ContextTimes::default(), newest: Some(time) };
    let now = Contents::of([("context", &now)]);
    assert_eq!(decide(&before(i64::MAX), &now, 0), None, "there is none");
    let early = decide(&before(-1_500_000_000), &now, -9).expect("times");
    assert_eq!(early.get("context", "a").map(|sent| sent.time), Some(0));
}

#[test]
fn a_time_is_never_given_twice() {
    let (a, none) = (tree(&[("a", file("a")), ("b", file("b"))]), tree(&[("b", file("b"))]));
    let of = |tree: &Tree| Contents::of([("context", tree)]);
    let time = |times: &ContextTimes| times.get("context", "a").map(|sent| sent.time);
    let mut times = ContextTimes::record(&of(&none), None, |_, _| Some(SECOND));
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        // Nothing else moves on: neither the clock nor the mounts.
        for tree in [&a, &none] {
            times = decide(&Before { times, newest: None }, &of(tree), 0).expect("times");
            times = ContextTimes::record(&of(tree), Some(&times), |_, _| None);
            assert!(time(&times).is_none_or(|time| given.insert(time)), "{given:?}");
        }
    }
    assert_eq!(given.len(), 3);
}

#[test]
fn a_record_is_what_was_sent() {
    let (one, two) =
        (tree(&[("d", NodeKind::Directory), ("d/a", file("a"))]), tree(&[("d", NodeKind::Directory), ("d/b", file("b"))]));
    let both = tree(&[("d", NodeKind::Directory), ("d/a", file("a")), ("d/b", file("b"))]);
    let now = Contents::of([("context", &one), ("context", &two), ("other", &one)]);
    assert_eq!(now.0["context"], Contents::of([("context", &both)]).0["context"], "parts of one directory");
    assert_ne!(now.0["other"]["d"], now.0["context"]["d"]);
    let sent = |directory: &str, path: &str| (directory == "context" && path != "d").then_some(7);
    let record = ContextTimes::record(&now, None, sent);
    let paths: Vec<_> = record.iter().map(|(directory, path, sent)| (directory, path, sent.time)).collect();
    assert_eq!(paths, [("context", "d/a", 7), ("context", "d/b", 7)]);
    let times = decide(&Before { times: record, newest: None }, &now, 5).expect("times");
    let record = ContextTimes::record(&now, Some(&times), |directory, path| sent(directory, path).map(|time| time + 1));
    let time = |directory: &str, path: &str| record.get(directory, path).map(|sent| sent.time);
    assert_eq!(
        (time("context", "d/a"), time("context", "d"), time("other", "d/a")),
        (Some(8), Some(5 * SECOND), Some(5 * SECOND))
    );
    let text = serde_json::to_string(&record).expect("text");
    assert_eq!(serde_json::from_str::<ContextTimes>(&text).expect("a record"), record);
    // A path that changed between two readings is what neither of them said.
    let torn = Contents::of([("context", &one), ("context", &tree(&[("d/a", file("other"))]))]);
    assert!(torn.0["context"]["d/a"] != now.0["context"]["d/a"]);
}

/// How a tool decides whether an object is up to date.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tool {
    /// It is not older than its sources, as in `make`.
    NotOlder,
    /// It is newer than its sources.
    Newer,
    /// As `NotOlder`, but the tool gives the object the latest time of its sources, as `cp -p`.
    Copies,
    /// The sources have the times that they had when it was made, as in Python.
    SameTimes,
}

/// What a tool made: the time of the file, and the sources with their contents and times.
#[derive(Debug, Clone)]
struct Object {
    time: i64,
    of: Vec<(String, u8)>,
    times: Vec<i64>,
}

/// A mount: one object for each source, and `all`, made of all sources and the directory.
type Mount = BTreeMap<String, Object>;

/// The sources as the tool sees them: content and time.
type Sources = BTreeMap<String, (u8, i64)>;

/// What a run of a tool did.
#[derive(Debug, Default, PartialEq)]
struct Done {
    made: BTreeSet<String>,
    /// Objects that it took to be up to date, although they were made of something else.
    wrong: Vec<String>,
}

const ALL: &str = "all";

/// Runs a tool for the wanted targets.
fn run(tool: Tool, mount: &mut Mount, sources: &Sources, directory: i64, wanted: u8, clock: &mut i64) -> Done {
    let mut done = Done::default();
    let targets = sources.keys().cloned().chain([ALL.to_owned()]).enumerate().filter(|(at, _)| wanted >> at & 1 == 1);
    for (_, target) in targets {
        let of: Vec<(&String, &(u8, i64))> = sources.iter().filter(|(name, _)| target == ALL || **name == target).collect();
        let mut times: Vec<i64> = of.iter().map(|(_, (_, time))| *time).collect();
        times.extend((target == ALL).then_some(directory));
        let of: Vec<(String, u8)> = of.into_iter().map(|(name, (content, _))| (name.clone(), *content)).collect();
        if let Some(object) = mount.get(&target)
            && match tool {
                Tool::NotOlder | Tool::Copies => times.iter().all(|time| object.time >= *time),
                Tool::Newer => times.iter().all(|time| object.time > *time),
                Tool::SameTimes => object.times == times,
            }
        {
            if object.of != of {
                done.wrong.push(target);
            }
            continue;
        }
        *clock += 1_234_567;
        let time = if tool == Tool::Copies { times.iter().copied().max().unwrap_or(*clock) } else { *clock };
        mount.insert(target.clone(), Object { time, of, times });
        done.made.insert(target);
    }
    done
}

const NAMES: [&str; 3] = ["f", "g", "h"];

/// The files of a branch: content and own time.
type Files = BTreeMap<String, (u8, i64)>;

fn contents(files: &Files) -> Contents {
    let mut tree = tree(&[("src", NodeKind::Directory)]);
    for (name, (content, _)) in files {
        tree.insert(&format!("src/{name}"), node(NodeKind::File(Digest::hash(&[*content]))));
    }
    Contents::of([("context", &tree)])
}

/// What is saved in a scope of the cache.
#[derive(Debug, Clone)]
struct Snapshot {
    mount: Mount,
    times: String,
}

impl Snapshot {
    fn before(&self) -> Before {
        let newest = self.mount.values().map(|object| object.time).max();
        Before { times: serde_json::from_str(&self.times).expect("a record"), newest }
    }
}

/// The files as a build sends them, with the directory's time, and the record to save.
fn sent(snapshot: Option<&Snapshot>, files: &Files, directory: i64, now: i64) -> (Sources, i64, ContextTimes) {
    let contents = contents(files);
    let chosen = snapshot.map(|snapshot| decide(&snapshot.before(), &contents, now.div_euclid(SECOND)).expect("times"));
    let own = |path: &str| path.strip_prefix("src/").map_or(directory, |name| files[name].1);
    let time = |path: &str| match &chosen {
        Some(chosen) => chosen.get("context", path).expect("a path").time,
        None => own(path),
    };
    let sources = files.iter().map(|(name, (content, _))| (name.clone(), (*content, time(&format!("src/{name}"))))).collect();
    (sources, time("src"), ContextTimes::record(&contents, chosen.as_ref(), |_, path| Some(time(path))))
}

#[derive(Debug, Clone)]
enum Act {
    /// Writes a file, with an own time relative to the clock.
    Write {
        branch: usize,
        name: usize,
        content: u8,
        own: i64,
    },
    Remove {
        branch: usize,
        name: usize,
    },
    Rename {
        branch: usize,
        from: usize,
        to: usize,
    },
    /// Takes over the other branch's files.
    Merge {
        branch: usize,
    },
    Build(Build),
}

#[derive(Debug, Clone)]
struct Build {
    branch: usize,
    /// How wrong the clock of the machine is.
    skew: i64,
    /// The targets that the step makes.
    wanted: u8,
    /// Whether the step runs: nothing is saved if it does not.
    runs: bool,
    /// Whether the build succeeds: nothing is saved if it does not.
    succeeds: bool,
    /// Whether the mount is saved with the times. If not, the former mount stays.
    saves_mount: bool,
    /// Whether the files come from a layer, which cuts their times to seconds.
    cut: bool,
}

fn acts(is_sane: bool) -> impl Strategy<Value = Vec<Act>> {
    let wild = move |range: std::ops::Range<i64>| if is_sane { 0..1 } else { range };
    let (branch, name) = (0..2_usize, 0..NAMES.len());
    let may = move |likely: u32| (0..100_u32).prop_map(move |drawn| is_sane || drawn < likely);
    let own = wild(-400 * SECOND..400 * SECOND);
    let write = (branch.clone(), name.clone(), 0..3_u8, own).prop_map(|(branch, name, content, own)| Act::Write {
        branch,
        name,
        content,
        own,
    });
    let wanted = if is_sane { 15..16_u8 } else { 1..16 };
    let build = (branch.clone(), wild(-90 * SECOND..90 * SECOND), wanted, (may(85), may(80), may(85), may(50))).prop_map(
        move |(branch, skew, wanted, (runs, succeeds, saves_mount, uncut))| {
            Act::Build(Build { branch, skew, wanted, runs, succeeds, saves_mount, cut: !uncut })
        },
    );
    let act = prop_oneof![
        4 => write,
        1 => (branch.clone(), name.clone()).prop_map(|(branch, name)| Act::Remove { branch, name }),
        1 => (branch.clone(), name.clone(), name).prop_map(|(branch, from, to)| Act::Rename { branch, from, to }),
        1 => branch.prop_map(|branch| Act::Merge { branch }),
        5 => build,
    ];
    proptest::collection::vec(act, 1..40)
}

fn tools() -> impl Strategy<Value = Tool> {
    prop::sample::select(vec![Tool::NotOlder, Tool::Newer, Tool::Copies, Tool::SameTimes])
}

/// Two branches with their files, and a clock.
struct World {
    files: [Files; 2],
    /// The own times of the branches' directories.
    directories: [i64; 2],
    clock: i64,
}

impl World {
    fn new() -> Self {
        let clock = 1_700_000_000 * SECOND + 123_456_789;
        let files: Files = NAMES.iter().map(|name| ((*name).to_owned(), (0, clock))).collect();
        Self { files: [files.clone(), files], directories: [clock; 2], clock: clock + 10 * SECOND }
    }

    /// Changes files. Returns the build, if the act is one.
    fn act<'a>(&mut self, act: &'a Act) -> Option<&'a Build> {
        self.clock += 10 * SECOND;
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        let branch = match act {
            Act::Build(build) => return Some(build),
            Act::Write { branch, .. } | Act::Remove { branch, .. } | Act::Rename { branch, .. } | Act::Merge { branch } => {
                *branch
            }
        };
        let before = names(&self.files[branch]);
        let other = self.files[1 - branch].clone();
        let files = &mut self.files[branch];
        match act {
            Act::Write { name, content, own, .. } => {
                let file = files.entry(NAMES[*name].to_owned()).or_insert((u8::MAX, 0));
                if file.0 != *content {
                    *file = (*content, self.clock + own);
                }
            }
            Act::Remove { name, .. } => {
                files.remove(NAMES[*name]);
            }
            Act::Rename { from, to, .. } => {
                if let Some(file) = files.remove(NAMES[*from]) {
                    files.insert(NAMES[*to].to_owned(), file);
                }
            }
            Act::Merge { .. } => *files = other,
            Act::Build(_) => {}
        }
        if names(files) != before {
            self.directories[branch] = self.clock;
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files with any times, clocks that are wrong, builds that fail or save only a part, two branches of which the second begins
    /// with the snapshot of the first: no tool uses an object that was made of something else.
    #[test]
    fn no_tool_skips_what_changed(tool in tools(), acts in acts(false)) {
        let mut world = World::new();
        let mut snapshots: [Option<Snapshot>; 2] = [None, None];
        for act in &acts {
            let Some(build) = world.act(act) else { continue };
            let former = snapshots[build.branch].clone().or_else(|| snapshots[0].clone());
            let mut clock = world.clock + build.skew;
            let (mut sources, mut directory, times) =
                sent(former.as_ref(), &world.files[build.branch], world.directories[build.branch], clock);
            if !build.runs {
                continue;
            }
            if build.cut {
                let cut = |time: i64| time.div_euclid(SECOND) * SECOND;
                sources.values_mut().for_each(|(_, time)| *time = cut(*time));
                directory = cut(directory);
            }
            let former = former.map(|former| former.mount).unwrap_or_default();
            let mut mount = former.clone();
            let done = run(tool, &mut mount, &sources, directory, build.wanted, &mut clock);
            prop_assert!(done.wrong.is_empty(), "{build:?}: {done:?}");
            if build.succeeds {
                let mount = if build.saves_mount { mount } else { former };
                snapshots[build.branch] = Some(Snapshot { mount, times: serde_json::to_string(&times).expect("text") });
            }
        }
    }

    /// With clocks that are right, nothing is made again whose content is that of the snapshot, although each build has a new
    /// checkout, with new own times. And it does no more than a machine that never goes away.
    #[test]
    fn no_tool_does_too_much(tool in tools(), acts in acts(true)) {
        let mut world = World::new();
        let mut snapshots: [Option<Snapshot>; 2] = [None, None];
        let mut machine = Mount::new();
        for act in &acts {
            let Some(build) = world.act(act) else { continue };
            let former = snapshots[build.branch].clone().or_else(|| snapshots[0].clone());
            let mut clock = world.clock + 12_345;
            let files = &world.files[build.branch];
            let checkout: Files = files.iter().map(|(name, (content, _))| (name.clone(), (*content, world.clock))).collect();
            let (sources, directory, times) = sent(former.as_ref(), &checkout, world.clock, clock);
            let mut mount = former.as_ref().map(|former| former.mount.clone()).unwrap_or_default();
            let done = run(tool, &mut mount, &sources, directory, build.wanted, &mut clock);
            let of = |name: &str| -> Vec<(String, u8)> {
                let of = files.iter().filter(|(file, _)| name == ALL || *file == name);
                of.map(|(file, (content, _))| (file.clone(), *content)).collect()
            };
            let is_changed = |name: &str| {
                let contents = contents(files);
                let Some(former) = &former else { return true };
                let before = former.before().times;
                let paths = contents.0["context"].iter().filter(|(path, _)| name == ALL || **path == format!("src/{name}"));
                let mut same = paths.map(|(path, content)| before.get("context", path).is_some_and(|sent| sent.content == *content));
                !same.all(|same| same)
            };
            let changed: BTreeSet<String> =
                files.keys().map(|name| &**name).chain([ALL]).filter(|name| is_changed(name)).map(str::to_owned).collect();
            prop_assert_eq!(&done, &Done { made: changed, wrong: Vec::new() });
            prop_assert!(done.made.iter().all(|name| mount[name].of == of(name)));
            snapshots[build.branch] = Some(Snapshot { mount, times: serde_json::to_string(&times).expect("text") });
            // The machine that never goes away builds the first branch, and its files have their own times. It makes more if a file
            // is written twice and has the same content in the end. It goes wrong if a file comes with an older time of its own.
            if build.branch == 0 && !acts.iter().any(|act| matches!(act, Act::Rename { .. } | Act::Merge { .. })) {
                let mut clock = world.clock + 12_345;
                let there = run(tool, &mut machine, files, world.directories[0], build.wanted, &mut clock);
                prop_assert!(there.wrong.is_empty() && done.made.is_subset(&there.made), "{:?}, but {:?}", there, done);
            }
        }
    }
}

/// Why copies below a step with carried mounts run again: BuildKit's and hakobi's caches know a copy by the content of its files, and
/// its layer has the times of the build that made it.
#[test]
fn a_layer_from_the_cache_would_hide_that_a_file_went_back() {
    let wrong = |copies_run_again: bool| {
        let mut layers: BTreeMap<Vec<(String, u8)>, (Sources, i64)> = BTreeMap::new();
        let mut snapshot: Option<Snapshot> = None;
        let mut wrong = Vec::new();
        // One file has a content, then another, and then the first again.
        for (build, content) in [1_u8, 2, 1].into_iter().enumerate() {
            let mut clock = (1_700_000_000 + 100 * i64::try_from(build).expect("small")) * SECOND;
            let files: Files = [("f".to_owned(), (content, clock))].into();
            let (sources, directory, times) = sent(snapshot.as_ref(), &files, clock, clock);
            let copied = (sources, directory);
            let layer = layers.entry(files.iter().map(|(name, (content, _))| (name.clone(), *content)).collect());
            let from_cache = layer.or_insert_with(|| copied.clone()).clone();
            let (sources, directory) = if copies_run_again { copied } else { from_cache };
            let mut mount = snapshot.map(|snapshot| snapshot.mount).unwrap_or_default();
            wrong.push(run(Tool::NotOlder, &mut mount, &sources, directory, 3, &mut clock).wrong);
            snapshot = Some(Snapshot { mount, times: serde_json::to_string(&times).expect("text") });
        }
        wrong
    };
    assert_eq!(wrong(true), [[""; 0]; 3]);
    // The third build gets the layer of the first, with its time. The object, made of the second content, is newer.
    assert_eq!(wrong(false), [&[][..], &[], &["f", ALL]]);
}

/// Why times are saved with the mounts of the same build, or later ones: the record of an earlier build says of a file that went back
/// that it did not change.
#[test]
fn times_older_than_a_mount_would_hide_that_a_file_went_back() {
    let mut snapshot: Option<Snapshot> = None;
    let mut done = Done::default();
    for (build, content) in [1_u8, 2, 1].into_iter().enumerate() {
        let mut clock = (1_700_000_000 + 100 * i64::try_from(build).expect("small")) * SECOND;
        let files: Files = [("f".to_owned(), (content, clock))].into();
        let (sources, directory, times) = sent(snapshot.as_ref(), &files, clock, clock);
        let mut mount = snapshot.as_ref().map(|snapshot| snapshot.mount.clone()).unwrap_or_default();
        done = run(Tool::NotOlder, &mut mount, &sources, directory, 3, &mut clock);
        let times = snapshot.map_or_else(|| serde_json::to_string(&times).expect("text"), |snapshot| snapshot.times);
        snapshot = Some(Snapshot { mount, times });
    }
    assert_eq!(done.wrong, ["f", ALL]);
}
