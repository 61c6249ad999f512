//! Tests runs that determine the image before they build it: without a daemon, or from the output of one stage.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::build::{Build, NO_DAEMON};
use support::engine::{C28, D20, D28, Engine, crane};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::parts::{part, unique};

/// The pushed build of all these tests.
fn pushed<'a>(machine: &'a Machine, image: &str) -> Build<'a> {
    Build::cached(machine).strategy("auto").push(image)
}

/// A project on a base image of its own, whose tag can be moved; gives that name.
fn on_a_moving_base(machine: &Machine) -> String {
    let moving = format!("{}/{}:latest", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("moving"));
    crane(&["copy", &base("busybox"), &moving]);
    let dockerfile =
        format!("FROM {moving}\nARG VERSION=1\nCOPY src.txt /\nRUN echo $VERSION > /version\nCMD [\"cat\", \"/src.txt\"]\n");
    machine.write("Dockerfile", &dockerfile).write("src.txt", "one\n");
    moving
}

/// What is said if nobody read the Dockerfile before with these options and bases.
const UNREAD: &str =
    "the cache has no build of this Dockerfile with these options and base images, and compiling it requires a Docker daemon";

#[test]
fn what_did_not_change_takes_no_daemon() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let moving = on_a_moving_base(&machine);
    let dockerfile = machine.read("Dockerfile");
    let image = unique_image("ahead");
    let cold = pushed(&machine, &image).done_on_empty(&engine).is("cold");

    let other = image.replace(":1", ":2");
    let alone = pushed(&machine, &other).on(NO_DAEMON).with(&["--iidfile", "id"]).done().is("unchanged");
    assert_eq!(alone["engine"], serde_json::json!({ "version": "", "store": "none", "transport": "none" }));
    assert_eq!(alone.digest(), cold.digest());
    assert_eq!(alone["images"][0]["config"], machine.read("id"));
    assert_eq!(crane(&["digest", &other]), cold.digest());
    assert_eq!(alone.steps("hit"), ["COPY src.txt /", "RUN echo 1 > /version"], "{alone}");
    let machine = machine.set("DOCKER_HOST", NO_DAEMON);
    let told = machine.hakobi(&["plan", "--network", "host", "--cache", "../cache", "-t", &image, "."]).exits(0);
    assert!(told.stdout.ends_with("nothing changed: no step runs\n"), "{}", told.stdout);

    // Whatever would have to run is named, with why; and an image for the daemon takes one.
    let build = pushed(&machine, &image);
    machine.write("src.txt", "two\n");
    let run = build.run().exits(5);
    assert!(run.stderr.contains("`COPY src.txt /` must run (src.txt changed), which requires a Docker daemon"), "{}", run.stderr);
    assert!(run.stderr.contains("/nowhere/docker.sock"), "{}", run.stderr);
    machine.write("src.txt", "one\n");
    let run = build.clone().with(&["--load"]).run().exits(5);
    assert!(run.stderr.contains("loading or exporting the image requires a Docker daemon"), "{}", run.stderr);

    // Nobody read these here before.
    let run = build.clone().with(&["--build-arg", "VERSION=2"]).run().exits(5);
    assert!(run.stderr.contains(UNREAD), "{}", run.stderr);
    machine.write("Dockerfile", &format!("{dockerfile}LABEL a=b\n"));
    let run = build.run().exits(5);
    assert!(run.stderr.contains(UNREAD), "{}", run.stderr);
    machine.write("Dockerfile", &dockerfile).write(".dockerignore", "none\n");
    build.run().exits(5);
    std::fs::remove_file(machine.folder().join(".dockerignore")).unwrap();
    build.run().exits(0);

    // The base moved.
    crane(&["copy", &base("busybox").replace(":latest", ":2"), &moving]);
    let run = build.run().exits(5);
    assert!(run.stderr.contains(UNREAD), "{}", run.stderr);
    build.on(&engine.host()).done_on_empty(&engine).is("cold");
}

#[test]
fn a_base_that_the_daemon_has_under_the_name_goes_first() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let moving = on_a_moving_base(&machine);
    let build = pushed(&machine, &unique_image("ahead"));
    build.done_on_empty(&engine).is("cold");
    // The registry has another image by then. Both builds are in the cache.
    crane(&["copy", &base("busybox").replace(":latest", ":2"), &moving]);
    build.done_on_empty(&engine).is("cold");
    engine.docker(&["pull", &base("busybox")]);
    engine.docker(&["tag", &base("busybox"), &moving]);
    let own = build.done();
    assert_ne!(own["engine"]["version"], "", "{own}");
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
    let image = unique_image("rounds");
    let build = pushed(&machine, &image);
    build.done_on_empty(&engine).is("cold");
    let shown = || engine.docker(&["run", "--rm", "--network", "host", &image]);
    let first = shown();

    // The recipe comes out the same, so that what is cooked of it is kept; the list itself is new.
    machine.write("list", "two\n");
    let changed = build.done_on_empty(&engine).is("partial");
    let ran = [
        "COPY . /all",
        "RUN wc -l < /all/list > /recipe",
        "COPY . /all",
        "RUN cat /cooked > /out; grep -v '#' /all/list >> /out",
    ];
    assert_eq!(
        changed.misses(),
        [&ran[..], &["COPY --from=build /out /", "RUN cat /proc/sys/kernel/random/uuid > /last"]].concat(),
        "{changed}"
    );
    assert_eq!(changed.warnings(), [""; 0], "{changed}");
    assert_eq!(shown(), first.replace("one", "two"), "what was cooked is what was cooked then");

    // Now what the build stage makes is the same too: the image is the one before.
    machine.write("other", "new\n");
    let same = build.done_on_empty(&engine);
    assert_eq!(same.misses(), ran, "{same}");
    assert_eq!((same.digest(), same.layers("pushed")), (changed.digest(), 0), "{same}");
    build.done_on_empty(&engine).is("unchanged");

    // A stage that is to run in any case decides nothing where it makes the same.
    if engine.name() != D20 {
        let again = build.clone().with(&["--no-cache-filter", "planner"]).done_on_empty(&engine);
        assert_eq!(again.misses(), ran[..2], "{again}");
        assert_eq!(again.digest(), changed.digest(), "{again}");
    }

    // What runs once runs once: what is kept of a stage is what the image was made with.
    build.clone().with(&["--no-cache"]).done_on_empty(&engine).is("cold");
    let cooked = shown();
    assert_ne!(cooked, first.replace("one", "two"));
    machine.write("list", "three\n");
    build.done_on_empty(&engine);
    assert_eq!(shown(), cooked.replace("two", "three"));

    // A step that fails in a stage is shown as the user's.
    machine.write("list", "#\n");
    let failed = build.run().exits(1);
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
        let build = pushed(&machine, &unique_image("aged"));
        let short = build.clone().with(&["--max-age", "1s"]);
        let cold = short.done_on_empty(&engine).is("cold");
        assert!(!cold.report.to_string().contains("--max-age"), "nothing is old where nothing is known: {cold}");
        build.clone().with(&["--max-age", "2d"]).done_on_empty(&engine).is("unchanged");

        std::thread::sleep(std::time::Duration::from_millis(2100));
        let arguments = ["plan", "--max-age", "1s", "--network", "host", "--cache", "../cache", "--format", "json", "."];
        let told: Value = serde_json::from_str(&machine.hakobi(&arguments).exits(0).stdout).unwrap();
        let reason = told["steps"][0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("its result is older than --max-age: it ran on 20") && reason.ends_with(" UTC"), "{told:#}");
        // The stage made the same files: what takes them is kept, were it not for its own age.
        let aged = short.done_on_empty(&engine).is("cold");
        assert_eq!(aged.steps("hit"), [""; 0], "{aged}");
        assert_ne!(aged.digest(), cold.digest());
        let again = build.done_on_empty(&engine);
        assert_eq!(again.digest(), aged.digest(), "the newer one counts from then on");

        // A daemon that knows the steps itself takes its own results no more than the store's.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        build.run().exits(0);
        assert_ne!(short.done().digest(), again.digest());
    }
}

#[test]
fn an_age_that_cannot_be_kept_to_is_refused_at_once() {
    let machine = Machine::with(NO_DAEMON);
    machine.write("Dockerfile", "FROM scratch\n");
    let wrong = machine.hakobi(&["build", "--max-age", "soon", "."]).exits(2);
    assert!(wrong.stderr.contains("invalid duration for --max-age: `soon`"), "{}", wrong.stderr);
    let daemon = machine.hakobi(&["build", "--max-age", "1d", "--strategy", "daemon", "."]).exits(2);
    assert!(daemon.stderr.contains("--max-age cannot be used with --strategy daemon"), "{}", daemon.stderr);
}

#[test]
fn an_age_takes_a_cache() {
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
    let image = unique_image("warm-stage");
    let build = pushed(&machine, &image);
    // Made by the daemon, and nothing of it kept.
    let plain = Build::new(&machine).strategy("daemon").with(&["--cache-mode", "off"]).push(&image);
    for text in ["one\n", "two\n"] {
        machine.write("a.txt", text);
        plain.run().exits(0);
        build.run().exits(0);
        let again = build.run().exits(0);
        assert!(!again.stderr.contains("a step ran twice"), "{}", again.stderr);
    }
    machine.write("a.txt", "three\n");
    build.run().exits(0);
    build.done().is("unchanged");
}
