//! Tests a daemon that keeps its state: the last solve of a run uses the results of the first solves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened, unique_image};
use support::machine::Machine;
use support::plain::plain_build;

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
    let base = base("busybox");
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
    let image = unique_image("living");
    let any = Build::cached(&machine).progress("plain").push(&image);
    let build = |argument: &str| any.clone().with(&["--build-arg", argument]).done();
    let mut told = vec![build("V=1").run.stderr];
    for (path, text, argument) in EDITS {
        machine.write(path, text);
        told.push(build(argument).run.stderr);
        let all = told.join("\n----\n");
        assert!(!all.contains("ran twice"), "{name}, {path} {argument}: {all}");
        assert_eq!(flattened(&image), plain(&engine, &machine, argument), "{name}, {path} {argument}: {all}");
        // All of it was remembered.
        assert_eq!(build(argument).tier(), "unchanged", "{name}, {path} {argument}: {all}");
    }
}

/// What plain Docker makes of the project on the same daemon, of all that goes into the image.
fn plain(engine: &Engine, machine: &Machine, argument: &str) -> BTreeMap<String, String> {
    let image = unique_image("plain");
    plain_build(engine, machine, &image, &["--build-arg", argument]).exits(0);
    engine.docker(&["rmi", &image]);
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
        plain(&engine, &machine, "V=1");
        let build = Build::cached(&machine);
        build.done();
        let next = build.done_on_empty(&engine);
        let reason = "the last build did not save its result: it came from the Docker daemon's own cache";
        assert_eq!(next["steps"][0]["reason"], reason, "{name}: {next}");
    }
}
