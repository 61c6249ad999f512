//! Tests `--cache-from IMAGE`: the cache stands beside the image, in its registry.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::build::{Build, NO_DAEMON};
use support::engine::{C28, D20, D28, ENGINES, Engine, crane};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::plain::{Times, now, plain_build, same_image};

/// Writes a project that copies its source last.
fn project(machine: &Machine) {
    let text = format!(
        "FROM {}\nRUN cat /proc/sys/kernel/random/uuid > /slow\nRUN echo more > /more\nCOPY src.txt /\nCMD [\"cat\", \"/src.txt\"]\n",
        base("busybox")
    );
    machine.write("Dockerfile", &text).write("src.txt", "one\n").write(".dockerignore", "report.json\n");
}

fn latest() -> String {
    format!("{}/{}:latest", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("latest"))
}

/// Returns the build that moves `latest`.
fn build<'a>(machine: &'a Machine, latest: &str) -> Build<'a> {
    Build::new(machine).report("../report.json").with(&["--cache-from", latest]).push(latest)
}

fn slow(image: &str) -> String {
    support::image::flattened(image)["slow"].clone()
}

/// A team's own recipe pushed the last image: the first run with hakobi has its layers, and records them.
#[test]
fn a_latest_of_docker_is_a_warm_start() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        project(&machine);
        let image = latest();
        engine.wipe();
        let docker = |arguments: &[&str]| {
            let mut command = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
            Run::of(command.env("DOCKER_BUILDKIT", "1").args(arguments)).exits(0)
        };
        docker(&["build", "--network", "host", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", &image, "."]);
        docker(&["push", &image]);
        let before = slow(&image);

        machine.write("src.txt", "two\n");
        let first = build(&machine, &image).done_on_empty(&engine);
        assert_eq!(slow(&image), before, "{name}: the slow step ran again: {first}");
        assert_eq!(first.warnings(), [""; 0], "{name}");
        let unchanged = build(&machine, &image).on(NO_DAEMON).done().is("unchanged");
        assert_eq!(unchanged.bytes("pushed"), 0, "{name}: {unchanged}");
        machine.write("src.txt", "three\n");
        let appended = build(&machine, &image).done_on_empty(&engine).is("append");
        assert_eq!((slow(&image), appended.layers("restored")), (before, 0), "{name}: {appended}");
    }
}

/// An image that has no cache in it: its base is known, and the first build records all.
#[test]
fn a_latest_without_a_cache_is_a_first_build() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = latest();
    crane(&["copy", &base("busybox"), &image]);
    let cold = build(&machine, &image).done_on_empty(&engine).is("cold");
    assert_eq!((cold.warnings(), cold.layers("pushed")), (vec![], 3), "{cold}");
    build(&machine, &image).done_on_empty(&engine).is("unchanged");
}

/// Images with the cache in the registry are what plain `docker build` makes.
#[test]
fn images_are_those_of_docker_build() {
    for name in [D20, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        project(&machine);
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("cat /proc/sys/kernel/random/uuid", "echo fixed"));
        let image = latest();
        for text in ["one\n", "two\n", "two\n", "three\n"] {
            let since = now();
            machine.write("src.txt", text);
            build(&machine, &image).done_on_empty(&engine);
            let plain = format!("{}-plain", image);
            plain_build(&engine, &machine, &plain, &[]);
            same_image(&engine, &image, &plain, Times::No, since, name);
        }
    }
}

/// Two jobs of one branch end at the same time: both push, and the next run has what both recorded.
#[test]
fn two_jobs_at_once_lose_nothing() {
    let engine = Engine::lock(C28);
    let machines = [Machine::with(&engine.host()), Machine::with(&engine.host())];
    let image = latest();
    for (machine, text) in machines.iter().zip(["left\n", "right\n"]) {
        project(machine);
        machine.write("src.txt", text);
    }
    build(&machines[0], &image).done_on_empty(&engine);
    engine.wipe();
    let dockerfiles = ["RUN echo left > /side\n", "RUN echo right > /side\n"];
    let running = machines.iter().zip(dockerfiles).map(|(machine, line)| {
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("CMD", &format!("{line}CMD")));
        build(machine, &image).command().spawn().unwrap()
    });
    for mut job in running.collect::<Vec<_>>() {
        assert!(job.wait().unwrap().success());
    }
    for machine in &machines {
        build(machine, &image).done_on_empty(&engine).is("unchanged");
    }
}

/// The old recipe's flags are still taken: BuildKit decides, and the cache has its stages.
#[test]
fn buildkit_may_decide() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = latest();
    let by_daemon = build(&machine, &image).strategy("daemon");
    by_daemon.done_on_empty(&engine);
    let before = slow(&image);
    machine.write("src.txt", "two\n");
    let again = by_daemon.done_on_empty(&engine);
    assert_eq!(slow(&image), before, "{again}");
    assert_eq!(again.warnings(), [""; 0], "{again}");
}
