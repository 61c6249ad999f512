//! Runs that know before anything is built what comes of it: without a daemon, and where what a stage made decides.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine, crane};
use support::image::{base, steps};
use support::machine::{Machine, Run};
use support::parts::{part, unique};

const ON_NOTHING: &str = "unix:///nowhere/docker.sock";

fn build(machine: &Machine, image: &str, more: &[&str]) -> Run {
    let arguments = [
        "build",
        "--strategy",
        "auto",
        "--network",
        "host",
        "--report",
        "../report.json",
        "--cache",
        "../cache",
        "--push",
        "-t",
        image,
    ];
    machine.hakobi(&[&arguments[..], more, &["."]].concat())
}

/// One run on a machine whose Docker is empty.
fn built(engine: &Engine, machine: &Machine, image: &str, more: &[&str]) -> Value {
    engine.wipe();
    build(machine, image, more).exits(0);
    machine.report("../report.json")
}

#[test]
fn what_did_not_change_takes_no_daemon() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let moving = format!("{}/{}:latest", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("moving"));
    crane(&["copy", &base("busybox"), &moving]);
    let dockerfile =
        format!("FROM {moving}\nARG VERSION=1\nCOPY src.txt /\nRUN echo $VERSION > /version\nCMD [\"cat\", \"/src.txt\"]\n");
    machine.write("Dockerfile", &dockerfile).write("src.txt", "one\n");
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("ahead"));
    let cold = built(&engine, &machine, &image, &[]);
    assert_eq!(cold["tier"], "cold", "{cold:#}");

    let machine = machine.set("DOCKER_HOST", ON_NOTHING);
    let other = image.replace(":1", ":2");
    build(&machine, &other, &["--iidfile", "id"]).exits(0);
    let report = machine.report("../report.json");
    assert_eq!(report["tier"], "unchanged", "{report:#}");
    assert_eq!(report["engine"], serde_json::json!({ "version": "", "store": "none", "transport": "none" }));
    assert_eq!(report["images"][0]["digest"], cold["images"][0]["digest"]);
    assert_eq!(report["images"][0]["config"], machine.read("id"));
    assert_eq!(crane(&["digest", &other]), cold["images"][0]["digest"].as_str().unwrap());
    assert_eq!(steps(&report, "hit"), ["COPY src.txt /", "RUN echo 1 > /version"], "{report:#}");
    let told = machine.hakobi(&["plan", "--network", "host", "--cache", "../cache", "-t", &image, "."]).exits(0);
    assert!(told.stdout.ends_with("nothing changed: no step runs\n"), "{}", told.stdout);

    // Whatever would have to run is named, with why; and an image for the daemon takes one.
    machine.write("src.txt", "two\n");
    let run = build(&machine, &image, &[]).exits(5);
    assert!(run.stderr.contains("`COPY src.txt /` must run (src.txt changed), which requires a Docker daemon"), "{}", run.stderr);
    assert!(run.stderr.contains("/nowhere/docker.sock"), "{}", run.stderr);
    machine.write("src.txt", "one\n");
    let run = build(&machine, &image, &["--load"]).exits(5);
    assert!(run.stderr.contains("loading or exporting the image requires a Docker daemon"), "{}", run.stderr);

    // Nobody read these here before.
    let unread =
        "the cache has no build of this Dockerfile with these options and base images, and compiling it requires a Docker daemon";
    let run = build(&machine, &image, &["--build-arg", "VERSION=2"]).exits(5);
    assert!(run.stderr.contains(unread), "{}", run.stderr);
    machine.write("Dockerfile", &format!("{dockerfile}LABEL a=b\n"));
    let run = build(&machine, &image, &[]).exits(5);
    assert!(run.stderr.contains(unread), "{}", run.stderr);
    machine.write("Dockerfile", &dockerfile).write(".dockerignore", "none\n");
    build(&machine, &image, &[]).exits(5);
    std::fs::remove_file(machine.folder().join(".dockerignore")).unwrap();
    build(&machine, &image, &[]).exits(0);

    // The base moved.
    crane(&["copy", &base("busybox").replace(":latest", ":2"), &moving]);
    let run = build(&machine, &image, &[]).exits(5);
    assert!(run.stderr.contains(unread), "{}", run.stderr);
    let machine = machine.set("DOCKER_HOST", &engine.host());
    let moved = built(&engine, &machine, &image, &[]);
    assert_eq!(moved["tier"], "cold", "{moved:#}");

    // An image that the daemon has under the base's name goes first there.
    engine.docker(&["pull", &base("busybox")]);
    engine.docker(&["tag", &base("busybox"), &moving]);
    build(&machine, &image, &[]).exits(0);
    let own = machine.report("../report.json");
    assert_ne!(own["engine"]["version"], "", "{own:#}");
}

/// A stage whose output seldom changes stands between the sources and the slow step.
fn planner(machine: &Machine) {
    let base = base("busybox");
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS planner\nCOPY . /all\nRUN wc -l < /all/list > /recipe\n\
                 FROM {base} AS build\nCOPY --from=planner /recipe /\nRUN cat /recipe > /cooked; cat /proc/sys/kernel/random/uuid >> /cooked\nCOPY . /all\n\
                 RUN cat /cooked > /out; grep -v '#' /all/list >> /out\n\
                 FROM {base}\nCOPY --from=build /out /\nRUN cat /proc/sys/kernel/random/uuid > /last\nCMD [\"cat\", \"/out\"]\n"
            ),
        )
        .write("list", "one\n");
}

fn what_a_stage_made_decides(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    planner(&machine);
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("rounds"));
    let cold = built(&engine, &machine, &image, &[]);
    assert_eq!(cold["tier"], "cold", "{cold:#}");
    let shown = || engine.docker(&["run", "--rm", "--network", "host", &image]);
    let first = shown();

    // The recipe comes out the same, so that what is cooked of it is kept; the list itself is new.
    machine.write("list", "two\n");
    let changed = built(&engine, &machine, &image, &[]);
    let ran = [
        "COPY . /all",
        "RUN wc -l < /all/list > /recipe",
        "COPY . /all",
        "RUN cat /cooked > /out; grep -v '#' /all/list >> /out",
    ];
    assert_eq!(
        steps(&changed, "miss"),
        [&ran[..], &["COPY --from=build /out /", "RUN cat /proc/sys/kernel/random/uuid > /last"]].concat(),
        "{changed:#}"
    );
    assert_eq!(changed["tier"], "partial", "{changed:#}");
    assert_eq!(changed["cache"]["warnings"], serde_json::json!([]), "{changed:#}");
    assert_eq!(shown(), first.replace("one", "two"), "what was cooked is what was cooked then");

    // Now what the build stage makes is the same too: the image is the one before.
    machine.write("other", "new\n");
    let same = built(&engine, &machine, &image, &[]);
    assert_eq!(steps(&same, "miss"), ran, "{same:#}");
    assert_eq!(same["images"][0]["digest"], changed["images"][0]["digest"], "{same:#}");
    assert_eq!(same["layers"]["pushed"], 0, "{same:#}");
    let unchanged = built(&engine, &machine, &image, &[]);
    assert_eq!(unchanged["tier"], "unchanged", "{unchanged:#}");

    // A stage that is to run in any case decides nothing where it makes the same.
    if engine.name() != D20 {
        let anew = built(&engine, &machine, &image, &["--no-cache-filter", "planner"]);
        assert_eq!(steps(&anew, "miss"), ran[..2], "{anew:#}");
        assert_eq!(anew["images"][0]["digest"], changed["images"][0]["digest"], "{anew:#}");
    }

    // What runs once runs once: what is kept of a stage is what the image was made with.
    let all = built(&engine, &machine, &image, &["--no-cache"]);
    assert_eq!(all["tier"], "cold", "{all:#}");
    let cooked = shown();
    assert_ne!(cooked, first.replace("one", "two"));
    machine.write("list", "three\n");
    built(&engine, &machine, &image, &[]);
    assert_eq!(shown(), cooked.replace("two", "three"));

    // A step that fails in a stage is shown as the user's.
    machine.write("list", "#\n");
    let failed = build(&machine, &image, &[]).exits(1);
    assert!(failed.stderr.contains("grep -v '#' /all/list"), "{}", failed.stderr);
    assert!(failed.stderr.contains("Dockerfile:8"), "{}", failed.stderr);
}

#[test]
fn what_a_stage_made_decides_on_docker_20() {
    what_a_stage_made_decides(D20);
}

#[test]
fn what_a_stage_made_decides_on_docker_28() {
    what_a_stage_made_decides(D28);
}

#[test]
fn what_a_stage_made_decides_on_the_containerd_store() {
    what_a_stage_made_decides(C28);
}

#[test]
fn a_command_older_than_allowed_runs_again() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        let base = base("busybox");
        let random = "cat /proc/sys/kernel/random/uuid";
        let dockerfile = format!(
            "FROM {base} AS tools\nRUN {random} > /tool; echo fixed > /fixed\nFROM {base}\nRUN {random} > /own\nCOPY src.txt /\n\
             COPY --from=tools /fixed /fixed\nRUN cat /fixed\n"
        );
        machine.write("Dockerfile", &dockerfile).write("src.txt", "one\n");
        let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("aged"));
        let cold = built(&engine, &machine, &image, &["--max-age", "1s"]);
        assert_eq!(cold["tier"], "cold", "{cold:#}");
        assert!(!cold.to_string().contains("--max-age"), "nothing is old where nothing is known: {cold:#}");
        let young = built(&engine, &machine, &image, &["--max-age", "2d"]);
        assert_eq!(young["tier"], "unchanged", "{young:#}");

        std::thread::sleep(std::time::Duration::from_millis(2100));
        let arguments = ["plan", "--max-age", "1s", "--network", "host", "--cache", "../cache", "--format", "json", "."];
        let told: Value = serde_json::from_str(&machine.hakobi(&arguments).exits(0).stdout).unwrap();
        let reason = told["steps"][0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("its result is older than --max-age: it ran on 20") && reason.ends_with(" UTC"), "{told:#}");
        // The stage made the same files: what takes them is kept, were it not for its own age.
        let aged = built(&engine, &machine, &image, &["--max-age", "1s"]);
        assert_eq!(aged["tier"], "cold", "{aged:#}");
        assert_eq!(steps(&aged, "hit"), [""; 0], "{aged:#}");
        assert_ne!(aged["images"][0]["digest"], cold["images"][0]["digest"]);
        let again = built(&engine, &machine, &image, &[]);
        assert_eq!(again["images"][0]["digest"], aged["images"][0]["digest"], "the newer one counts from then on");

        // A daemon that knows the steps itself takes its own results no more than the store's.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        build(&machine, &image, &[]).exits(0);
        build(&machine, &image, &["--max-age", "1s"]).exits(0);
        assert_ne!(machine.report("../report.json")["images"][0]["digest"], again["images"][0]["digest"]);
    }
}

#[test]
fn an_age_is_not_left_out_in_silence() {
    let machine = Machine::with(ON_NOTHING);
    machine.write("Dockerfile", "FROM scratch\n");
    let wrong = machine.hakobi(&["build", "--max-age", "soon", "."]).exits(2);
    assert!(wrong.stderr.contains("invalid duration for --max-age: `soon`"), "{}", wrong.stderr);
    let daemon = machine.hakobi(&["build", "--max-age", "1d", "--strategy", "daemon", "."]).exits(2);
    assert!(daemon.stderr.contains("--max-age cannot be used with --strategy daemon"), "{}", daemon.stderr);
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let nowhere = machine.hakobi(&["build", "--max-age", "1d", "--cache-mode", "off", "."]).exits(2);
    assert!(nowhere.stderr.contains("BuildKit decides what is cached in this build"), "{}", nowhere.stderr);
}

#[test]
fn a_stage_that_the_daemon_made_before_is_remembered_when_it_changes() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let base = base("busybox");
    machine.write(
        "Dockerfile",
        &format!(
            "FROM {base} AS one\nRUN mkdir /o && echo {} > /o/f\nCOPY a.txt /o/\nFROM {base}\nCOPY --from=one /o /p\nCOPY --from=one /o/f /q\n",
            unique("made")
        ),
    );
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("warm-stage"));
    for text in ["one\n", "two\n"] {
        machine.write("a.txt", text);
        // The daemon has the steps from a build that nobody kept.
        let plain = ["build", "--network", "host", "--strategy", "daemon", "--cache-mode", "off", "--push", "-t", &image, "."];
        machine.hakobi(&plain).exits(0);
        build(&machine, &image, &[]).exits(0);
        let again = build(&machine, &image, &[]).exits(0);
        assert!(!again.stderr.contains("a step ran twice"), "{}", again.stderr);
    }
    machine.write("a.txt", "three\n");
    build(&machine, &image, &[]).exits(0);
    build(&machine, &image, &[]).exits(0);
    assert_eq!(machine.report("../report.json")["tier"], "unchanged");
}
