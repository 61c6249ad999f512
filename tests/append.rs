//! Appends, on every engine: files are laid on a base that does not come down, and what comes out is what a build on it gives.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, config, flattened, steps};
use support::machine::{Machine, Run};
use support::parts::{part, unique};

/// One run on a machine whose Docker is empty.
fn run(engine: &Engine, machine: &Machine, more: &[&str]) -> Value {
    engine.wipe();
    let mut arguments = vec!["build", "--network", "host", "--report", "../report.json", "--cache", "../cache", "--push"];
    arguments.extend(more);
    arguments.push(".");
    machine.hakobi(&arguments).exits(0);
    machine.report("../report.json")
}

fn image(name: &str) -> String {
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique(name))
}

fn files_are_laid_on_what_does_not_come_down(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let (base, image, plain) = (base("busybox"), image("append"), image("plain"));
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base}\nRUN adduser -D -u 1234 app; mkdir -p /srv/app/static /data && chmod 2750 /srv/app && chown app /srv/app; \
                 ln -s /srv/app /app; mkdir /plain; ln -s plain /to; echo old > /srv/app/static/a.css\n\
                 WORKDIR /plain/work\nCOPY --chown=app src /to/\nCOPY top.txt /data/\nLABEL a=b\nCMD [\"cat\", \"/plain/static/a.css\"]\n"
            ),
        )
        .write("src/static/a.css", "one\n")
        .write("src/deep/er/file", "deep\n")
        .write("top.txt", "top\n");
    let same_as_plain = || {
        run(&engine, &machine, &["-t", &plain, "--cache-mode", "off", "--strategy", "daemon"]);
        assert_eq!(flattened(&image), flattened(&plain));
        assert_eq!(config(&image), config(&plain));
    };
    let appends = |layers: u64| {
        let appended = run(&engine, &machine, &["-t", &image]);
        assert_eq!(appended["tier"], "append", "{appended:#}");
        assert_eq!((&appended["layers"]["restored"], &appended["bytes"]["restored"]), (&Value::from(0), &Value::from(0)));
        assert_eq!(appended["layers"]["pushed"], layers, "{appended:#}");
        appended
    };
    let cold = run(&engine, &machine, &["-t", &image]);
    assert_eq!(cold["tier"], "cold", "{cold:#}");
    // By hakobi itself: the first run showed that the daemon makes the same.
    machine.write("src/static/a.css", "two\n").write("src/new file.txt", "new\n");
    let appended = appends(2);
    assert_eq!(steps(&appended, "miss"), ["COPY --chown=app src /to/", "COPY top.txt /data/"], "{appended:#}");
    assert!(appended["steps"].to_string().contains("src/static/a.css changed"), "{appended:#}");
    assert_eq!(engine.docker(&["images", "-q"]), "", "no daemon had a part in it");
    same_as_plain();
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    let again = run(&engine, &machine, &["-t", &image]);
    assert_eq!(again["tier"], "unchanged", "{again:#}");
    assert_eq!(again["images"][0]["digest"], appended["images"][0]["digest"]);
    // Only the last step is open: it lies on an appended state. No daemon is there.
    machine.write("top.txt", "other\n");
    let nowhere =
        ["build", "--network", "host", "--cache", "../cache", "--push", "-t", &image, "--report", "../report.json", "."];
    Run::of(machine.command("hakobi").env("DOCKER_HOST", "unix:///nowhere/docker.sock").args(nowhere)).exits(0);
    let alone = machine.report("../report.json");
    assert_eq!((&alone["tier"], &alone["layers"]["pushed"]), (&Value::from("append"), &Value::from(1)), "{alone:#}");
    assert_eq!(alone["engine"]["store"], "none", "{alone:#}");
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/data/top.txt"]), "other");
    // Another kind of step: the daemon lays it on a skeleton. A directory with setgid bits is its alone to know.
    let dockerfile = machine.read("Dockerfile").replace("COPY top.txt /data/", "COPY --chown=app src /app/");
    machine.write("Dockerfile", &dockerfile);
    appends(1);
    same_as_plain();
    machine.write("src/static/a.css", "three\n");
    let verified = run(&engine, &machine, &["-t", &image, "--verify"]);
    assert_eq!((&verified["tier"], &verified["layers"]["pushed"]), (&Value::from("append"), &Value::from(2)), "{verified:#}");
    assert_ne!(verified["layers"]["restored"], 0, "the base came down to compare: {verified:#}");
    same_as_plain();
    // What is made on it is whole.
    machine.write("Dockerfile", &format!("FROM {image}\nRUN cat /plain/static/a.css > /made\nCMD [\"cat\", \"/made\"]\n"));
    run(&engine, &machine, &["-t", &plain]);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &plain]), "three");
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_docker_20() {
    files_are_laid_on_what_does_not_come_down(D20);
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_docker_28() {
    files_are_laid_on_what_does_not_come_down(D28);
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_the_containerd_store() {
    files_are_laid_on_what_does_not_come_down(C28);
}

fn a_runtime_stage_takes_what_was_built(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let (base, image, plain) = (base("busybox"), image("runtime"), image("plain"));
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nRUN echo tools > /tools\nCOPY src.txt /\nRUN mkdir -p /out/bin && cp src.txt /out/bin/app && chmod 755 /out/bin/app && \
                 ln -s app /out/bin/link && ln /out/bin/app /out/bin/hard && chown -R 7:8 /out\n\
                 FROM {base}\nCOPY --from=build /out /usr/local\nUSER 7\nCMD [\"cat\", \"/usr/local/bin/app\"]\n"
            ),
        )
        .write("src.txt", "one\n");
    run(&engine, &machine, &["-t", &image]);
    machine.write("src.txt", "two\n");
    let built = run(&engine, &machine, &["-t", &image]);
    assert_eq!(built["tier"], "partial", "a command ran: {built:#}");
    assert_eq!(built["layers"]["pushed"], 1, "{built:#}");
    // The state below the changed step, of the base and one command: and nothing for the runtime stage.
    assert_eq!(built["layers"]["restored"], 2, "{built:#}");
    run(&engine, &machine, &["-t", &plain, "--cache-mode", "off", "--strategy", "daemon"]);
    assert_eq!(flattened(&image), flattened(&plain));
    assert_eq!(config(&image), config(&plain));
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    let again = run(&engine, &machine, &["-t", &image]);
    assert_eq!(again["tier"], "unchanged", "{again:#}");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_docker_20() {
    a_runtime_stage_takes_what_was_built(D20);
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_docker_28() {
    a_runtime_stage_takes_what_was_built(D28);
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_the_containerd_store() {
    a_runtime_stage_takes_what_was_built(C28);
}

#[test]
fn a_daemon_that_made_it_itself_needs_nothing() {
    for name in [D20, D28, C28] {
        let engine = Engine::fresh(name);
        let machine = Machine::with(&engine.host());
        let dockerfile = format!("FROM {}\nRUN date +%N > /stamp\nCOPY a.txt /\nRUN cat /a.txt > /b.txt\n", base("busybox"));
        machine.write("Dockerfile", &dockerfile).write("a.txt", "one\n");
        let tag = unique("warm");
        let build = |more: &[&str]| {
            let mut arguments =
                vec!["build", "--network", "host", "--report", "../report.json", "--cache", "../cache", "-t", &tag];
            arguments.extend(more);
            arguments.push(".");
            machine.hakobi(&arguments).exits(0);
            machine.report("../report.json")
        };
        let stamp = || engine.docker(&["run", "--rm", "--network", "host", &tag, "cat", "/stamp", "/b.txt"]);
        build(&[]);
        let made = stamp();
        for (text, tier) in [("one\n", "unchanged"), ("two\n", "partial"), ("two\n", "unchanged"), ("one\n", "unchanged")] {
            machine.write("a.txt", text);
            let report = build(&[]);
            assert_eq!(report["tier"], tier, "{name} {text}: {report:#}");
            assert_eq!(
                (&report["layers"]["restored"], &report["bytes"]["restored"]),
                (&Value::from(0), &Value::from(0)),
                "{report:#}"
            );
            assert_eq!(stamp(), made.replace("one", text.trim()), "{name}");
        }
        // A daemon that forgot it all is another one.
        engine.wipe();
        let restored = build(&[]);
        assert_eq!(restored["tier"], "unchanged", "{restored:#}");
        assert_ne!(restored["layers"]["restored"], 0, "{restored:#}");
        assert_eq!(stamp(), made, "{name}");
        engine.docker(&["rmi", &tag]);
    }
}
