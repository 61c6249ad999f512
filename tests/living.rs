//! Tests a daemon that keeps its state: the last solve of a run uses the results of the first solves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened};
use support::machine::{Machine, Run};
use support::parts::{part, unique};

/// What a developer does one after another, and what is given to the build.
const EDITS: &[(&str, &str, &str)] = &[
    ("conf/app.conf", "conf two\n", "V=1"),
    ("src/main", "src two\n", "V=1"),
    ("cmd/run", "# a comment\ncmd\n", "V=1"),
    ("cmd/run", "# a comment\ncmd\n", "V=2"),
    ("lock", "lock two\n", "V=1"),
    ("lock", "lock three\n", "V=2"),
];

fn no_step_runs_twice(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let (base, registry) = (base("busybox"), part("HAKOBI_TEST_REGISTRY_OPEN"));
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nWORKDIR /w\nCOPY lock ./\nRUN cat lock > deps; head -c 8 /dev/urandom | od -An -tx1 > /made\n\
                 COPY cmd cmd\nCOPY src src\nARG V=1\n\
                 RUN mkdir /out && {{ grep -hv '^#' cmd/* src/*; echo $V; }} >/out/app\n\
                 FROM scratch\nCOPY --from=build /etc/passwd /etc/\nCOPY --from=build /out/app /app\nCOPY conf /conf\n"
            ),
        )
        .write("lock", "lock one\n")
        .write("cmd/run", "cmd\n")
        .write("src/main", "src one\n")
        .write("conf/app.conf", "conf one\n");
    let image = format!("{registry}/{}:1", unique("living"));
    let build = |argument: &str| {
        let arguments =
            ["build", "--network", "host", "--progress", "plain", "--report", "../report.json", "--cache", "../cache"];
        machine.hakobi(&[&arguments[..], &["--push", "-t", &image, "--build-arg", argument, "."]].concat()).exits(0)
    };
    let mut told = vec![build("V=1").stderr];
    for (path, text, argument) in EDITS {
        machine.write(path, text);
        let run = build(argument);
        told.push(run.stderr);
        let all = told.join("\n----\n");
        assert!(!all.contains("ran twice"), "{name}, {path} {argument}: {all}");
        assert_eq!(flattened(&image), plain(&machine, argument), "{name}, {path} {argument}: {all}");
        // All of it was remembered.
        build(argument);
        assert_eq!(machine.report("../report.json")["tier"], "unchanged", "{name}, {path} {argument}: {all}");
    }
}

/// What plain Docker makes of the project on the same daemon, of all that goes into the image.
fn plain(machine: &Machine, argument: &str) -> std::collections::BTreeMap<String, String> {
    let (cli, image) = (part("HAKOBI_TEST_DOCKER_CLI"), format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("plain")));
    let docker = |arguments: &[&str]| {
        Run::of(machine.command(Path::new(&cli)).env("DOCKER_BUILDKIT", "1").args(arguments)).exits(0);
    };
    docker(&["build", "--no-cache", "--network", "host", "--build-arg", argument, "-t", &image, "."]);
    docker(&["push", &image]);
    docker(&["rmi", &image]);
    flattened(&image)
}

#[test]
fn no_step_runs_twice_on_docker_20() {
    no_step_runs_twice(D20);
}

#[test]
fn no_step_runs_twice_on_docker_28() {
    no_step_runs_twice(D28);
}

#[test]
fn no_step_runs_twice_on_the_containerd_store() {
    no_step_runs_twice(C28);
}

#[test]
fn what_the_daemon_had_itself_is_told_as_not_saved() {
    for name in [D20, D28, C28] {
        let engine = Engine::fresh(name);
        let machine = Machine::with(&engine.host());
        machine
            .write("Dockerfile", &format!("FROM {} AS b\nRUN echo hi >/a\nFROM scratch\nCOPY --from=b /a /\n", base("busybox")));
        // Another build on the same daemon.
        plain(&machine, "V=1");
        let build = || {
            let own = ["build", "--network", "host", "--report", "../report.json", "--cache", "../cache", "."];
            machine.hakobi(&own).exits(0);
            machine.report("../report.json")
        };
        build();
        engine.wipe();
        let next = build();
        let reason = "the last build did not save its result: it came from the Docker daemon's own cache";
        assert_eq!(next["steps"][0]["reason"], reason, "{name}: {next:#}");
    }
}
