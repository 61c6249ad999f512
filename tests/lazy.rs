//! Tests daemons of hakobi's own (`--daemon lazy`), whose data root is a disk in the cache.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

#[path = "lazy/faults.rs"]
mod faults;
#[path = "lazy/impossible.rs"]
mod impossible;
#[path = "lazy/killed.rs"]
mod killed;
#[path = "lazy/project.rs"]
mod project;

use std::collections::BTreeMap;

use project::{Project, app_of};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::build::Built;
use support::engine::{C28, D20, D28, Engine};
use support::image::unique_image;
use support::plain::{Times, plain_build, same_image};

fn goes_on(kind: &'static str) {
    let mut project = Project::new(kind);
    let first = project.build().done();
    assert_eq!(project.compiled(&first), ["a.c", "b.c", "c.c", "d.c"]);
    let disk = |built: &Built| ["read", "saved"].map(|what| built["engine"]["disk"][what].as_u64().expect("a disk"));
    assert!(disk(&first)[0] == 0 && disk(&first)[1] > 1_000_000, "{first}");
    project.set("b.c", "b2\n");
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let second = project.build().done();
    assert_eq!(project.compiled(&second), ["b.c"], "{second}");
    assert!(disk(&second)[0] > 1_000_000 && disk(&second)[1] > 0, "{second}");
    assert!(!second.log().contains("MB / "), "the base is on the disk: {second}");
    assert_eq!(project.left_behind(), [""; 0]);
    // Nothing has to run, so no daemon starts, although only its disk has what ran.
    project.build().done().is("unchanged");
    let engine = Engine::fresh(kind);
    let plain = unique_image("lazy-plain");
    plain_build(&engine, project.machine(), &plain, &[]).exits(0);
    same_image(&engine, project.image(), &plain, Times::No, since, kind);
}

#[test]
fn a_command_goes_on_where_it_left_off_on_docker_20() {
    goes_on(D20);
}

#[test]
fn a_command_goes_on_where_it_left_off_on_docker_28() {
    goes_on(D28);
}

#[test]
fn a_command_goes_on_where_it_left_off_on_docker_28_with_containerd() {
    goes_on(C28);
}

#[test]
fn hakobi_chooses_it_when_the_cache_has_its_disk() {
    let mut project = Project::new(D20);
    let engine = Engine::lock(D20);
    let auto = |project: &Project| project.build_by("auto").on(&engine.host()).done();
    assert!(!auto(&project).log().contains("a daemon of its own"));
    project.set("a.c", "a2\n");
    project.build().done();
    project.set("a.c", "a3\n");
    let chosen = auto(&project);
    assert!(chosen.log().contains("a daemon of its own"), "{chosen}");
    assert_eq!(project.compiled(&chosen), ["a.c"]);
    project.set("a.c", "a4\n");
    let stock = project.build_by("stock").on(&engine.host()).done();
    assert!(!stock.log().contains("a daemon of its own"), "{stock}");
}

#[test]
fn a_disk_is_kept_of_builds_that_may_and_succeed() {
    let mut project = Project::new(D28);
    project.fails = true;
    project.build().run().exits(1);
    assert_eq!(project.disk(), None);
    project.fails = false;
    project.build().done();
    let disk = project.disk();
    project.set("c.c", "c2\n");
    let read = project.build().with(&["--cache-mode", "read-only"]).done();
    assert_eq!(project.compiled(&read), ["c.c"], "{read}");
    assert_eq!(project.disk(), disk);
    assert_eq!(project.left_behind(), [""; 0]);
}

#[test]
fn another_version_of_docker_begins_anew() {
    let project = Project::new(D20);
    project.build().done();
    let mut newer = project.with_docker(D28);
    newer.set("b.c", "b2\n");
    let built = newer.build().done();
    assert!(built.log().contains("MB / "), "the base comes again: {built}");
    assert_eq!(app_of(newer.image()), newer.app());
}

#[test]
fn of_two_builds_at_once_one_keeps_its_disk() {
    let mut project = Project::new(D28);
    project.build().done();
    let mut other = project.twin();
    project.set("a.c", "a2\n");
    other.set("b.c", "b2\n");
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| project.build().done());
        let two = scope.spawn(|| other.build().done());
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!((project.compiled(&one), other.compiled(&two)), (vec!["a.c".to_owned()], vec!["b.c".to_owned()]));
    let kept = [&one, &two].map(|built| built["engine"]["disk"]["kept"].as_bool().unwrap());
    assert_ne!(kept[0], kept[1], "{one}\n{two}");
    assert_eq!(app_of(project.image()), project.app());
    assert_eq!(app_of(other.image()), other.app());
}

/// A disk that lives through many builds neither spoils an image nor grows for ever.
#[test]
#[ignore = "long"]
fn long_thirty_builds_from_each_others_disks() {
    let mut random = StdRng::seed_from_u64(20);
    let mut project = Project::new(D28);
    let engine = Engine::fresh(D28);
    let mut sizes = BTreeMap::new();
    for round in 0..30 {
        for _ in 0..random.random_range(1..4) {
            let name = ["a.c", "b.c", "c.c", "d.c", "e.c", "f.c"][random.random_range(0..6)];
            // Some of it comes back.
            project.set(name, &format!("{name} {}\n", random.random_range(0..5)));
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        project.build().done();
        let plain = unique_image("lazy-plain");
        plain_build(&engine, project.machine(), &plain, &[]).exits(0);
        same_image(&engine, project.image(), &plain, Times::No, since, &round.to_string());
        project.prune();
        sizes.insert(round, project.cache_bytes());
        assert_eq!(project.left_behind(), [""; 0]);
    }
    println!("{sizes:?}");
    assert!(sizes[&29] < 2 * sizes[&9], "{sizes:?}");
}
