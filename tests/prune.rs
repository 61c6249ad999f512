//! Tests `hakobi cache prune` and `--cache-max-size` with real builds.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::build::Build;
use support::engine::{D28, Engine};
use support::image::base;
use support::machine::Machine;
use support::parts::unique;
use support::s3::{BUCKET, S3Server};

/// A build with a stage, a command and a copy.
fn project(machine: &Machine, source: &str) {
    let base = base("busybox");
    let text = format!(
        "FROM {base} AS build\nCOPY src.txt /src.txt\nRUN head -c 300000 /dev/urandom > /made && cat /src.txt >> /made\n\
         FROM {base}\nRUN echo below > /below\nCOPY --from=build /made /made\nCOPY other.txt /other.txt\n"
    );
    machine.write("Dockerfile", &text);
    machine.write("src.txt", source);
    machine.write("other.txt", "other\n");
}

fn prune(machine: &Machine, cache: &str, options: &[&str]) -> Value {
    let arguments = [&["cache", "prune", "--json", "--cache", cache], options].concat();
    serde_json::from_str(&machine.hakobi(&arguments).exits(0).stdout).unwrap()
}

#[test]
fn what_stays_is_enough_for_the_next_build() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    for cache in [format!("s3://{BUCKET}/prune"), "../cache".to_owned()] {
        let variables = server.variables();
        let machine = variables.iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value));
        let image = unique("prune");
        let build = || Build::new(&machine).report("../report.json").cache(&cache).tag(&image).done_on_empty(&engine);
        for source in ["one\n", "two\n", "three\n"] {
            project(&machine, source);
            build();
        }
        let dry = prune(&machine, &cache, &["--keep-builds", "1", "--grace", "0s", "--dry-run"]);
        assert_eq!((&dry["builds"], dry["removed_builds"].as_array().unwrap().len()), (&3.into(), 2), "{dry}");
        let first = prune(&machine, &cache, &["--keep-builds", "1"]);
        assert_eq!((&first["removed_blobs"], &first["unused_blobs"]), (&0.into(), &dry["removed_blobs"]), "{first}");
        let told = prune(&machine, &cache, &["--keep-builds", "1", "--grace", "0s"]);
        assert_eq!(told["removed_blobs"], dry["removed_blobs"], "{told}");
        assert!(told["removed_bytes"].as_u64().unwrap() > 500_000, "{told}");
        machine.hakobi(&["cache", "verify", "--cache", &cache]).exits(0);
        build().is("unchanged");
        machine.write("other.txt", "changed\n");
        assert_eq!(build().misses(), ["COPY other.txt /other.txt"], "{cache}");
        // The layers of the first build are gone, so its steps run again.
        project(&machine, "one\n");
        assert!(build().misses().contains(&"COPY src.txt /src.txt".to_owned()), "{cache}");
        let all = prune(&machine, &cache, &["--max-size", "0", "--grace", "0s"]);
        assert_eq!(all["needed_bytes"], 0, "{all}");
        build();
    }
}

/// Builds and prunes at once: a build that loses something runs more steps, and does not fail.
#[test]
fn builds_go_on_while_the_cache_is_pruned() {
    let engine = Engine::lock(D28);
    let machines = ["a", "b"].map(|_| Machine::with(&engine.host()));
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache").to_str().unwrap().to_owned();
    let image = unique("prune-at-once");
    for round in 0..6 {
        engine.wipe();
        let children = machines.each_ref().map(|machine| {
            project(machine, &format!("{}\n", round / 2));
            Build::new(machine).report("../report.json").cache(&cache).tag(&image).start()
        });
        for mut child in children {
            while child.try_wait().unwrap().is_none() {
                machines[0].hakobi(&["cache", "prune", "--max-size", "1", "--grace", "0s", "--cache", &cache]);
            }
            assert!(child.wait().unwrap().success(), "round {round}");
        }
    }
}

#[test]
fn a_directory_does_not_grow_without_limit() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let image = unique("prune-directory");
    let build = |source: &str| {
        project(&machine, source);
        Build::cached(&machine).with(&["--cache-max-size", "1m"]).tag(&image).done_on_empty(&engine)
    };
    for number in 0..3 {
        build(&format!("{number}\n"));
    }
    let last = build("3\n");
    assert!(last.log().contains("pruned the cache, which was above 1.0 MB: "), "{last}");
    build("3\n").is("unchanged");
    let wrong = machine.hakobi(&["build", "--cache", "s3://b/c", "--cache-max-size", "1g", "."]).exits(2);
    assert!(wrong.stderr.contains("--cache-max-size is only for a cache in a directory"), "{}", wrong.stderr);
    let wrong = machine.hakobi(&["cache", "prune", "--cache", "../cache"]).exits(2);
    assert!(wrong.stderr.contains("must be told what to keep"), "{}", wrong.stderr);
    let wrong = machine.hakobi(&["cache", "prune", "--keep", "soon", "--cache", "../cache"]).exits(2);
    assert!(wrong.stderr.contains("invalid duration for --keep: `soon`"), "{}", wrong.stderr);
    let wrong = machine.hakobi(&["cache", "prune", "--keep", "1d", "--cache", "../nothing"]).exits(4);
    assert!(wrong.stderr.contains("no cache at ../nothing"), "{}", wrong.stderr);
}
