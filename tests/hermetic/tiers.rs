//! Tests each tier of a build: with an empty daemon, like on a new machine, and with a daemon that keeps its state.

use std::process::Command;

use crate::machine::Run;
use crate::scripted::daemon::StoreKind;
use crate::world::World;

const FILES_LAST: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nCMD [\"run\"]\n";

const STAGES: &str =
    "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM BASE\nRUN sum /deps\nCOPY --from=build /out /app/\n";

/// Both kinds of image stores.
const STORES: [StoreKind; 2] = [StoreKind::Containerd, StoreKind::GraphDriver];

fn files_last() -> World {
    files_last_on(StoreKind::Containerd)
}

fn files_last_on(store: StoreKind) -> World {
    let world = World::on(store, FILES_LAST);
    world.write("src/main", "one\n").write("src/deep/er", "deep\n");
    world
}

#[test]
fn a_first_build_is_cold() {
    for store in STORES {
        let world = files_last_on(store);
        let cold = world.build(&[]);
        assert_eq!(cold.tier(), "cold", "{:#}", cold.report);
        assert_eq!(cold.ran, ["[2/3] RUN sum /deps", "[3/3] COPY src /app/src"]);
        assert_eq!(cold.warnings(), [""; 0]);
    }
}

#[test]
fn the_same_build_again_asks_no_daemon() {
    for store in STORES {
        let world = files_last_on(store);
        world.build(&[]);
        let first = world.registry.tagged("app", "1");
        let again = world.wiped().build(&[]);
        assert_eq!((again.tier(), again.ran.len()), ("unchanged", 0), "{:#}", again.report);
        assert_eq!(again.report["layers"]["restored"], 0, "{:#}", again.report);
        assert_eq!(world.registry.tagged("app", "1"), first);
    }
}

#[test]
fn an_unchanged_image_is_there_without_a_daemon() {
    let world = files_last();
    world.build(&[]);
    let image = format!("{}/app:1", world.registry.host());
    let mut hakobi: Command = world.machine.command(env!("CARGO_BIN_EXE_hakobi"));
    hakobi.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    Run::of(hakobi.args(["build", "--push", "-t", &image, "--cache", "../cache", "."])).exits(0);
}

#[test]
fn new_files_at_the_end_are_appended_by_hakobi_itself() {
    for store in STORES {
        let world = files_last_on(store);
        world.build(&[]);
        world.write("src/main", "two\n").write("src/new", "new\n");
        let appended = world.wiped().build(&[]);
        assert_eq!((appended.tier(), appended.ran.len()), ("append", 0), "{:#}", appended.report);
        assert_eq!(appended.report["layers"]["restored"], 0, "{:#}", appended.report);
        assert_eq!(appended.report["layers"]["pushed"], 1, "{:#}", appended.report);
    }
}

#[test]
fn files_out_of_a_stage_are_appended_on_a_skeleton_by_the_daemon() {
    for store in STORES {
        let world = World::on(store, STAGES);
        world.write("src/main", "one\n");
        world.build(&[]);
        // The last stage now copies another file of the cached stage.
        let world = world.dockerfile(&STAGES.replace("/out /app/", "/src /app/"));
        let appended = world.wiped().build(&[]);
        assert_eq!(appended.tier(), "append", "{:#}\n{}", appended.report, appended.stderr);
        assert_eq!(appended.ran, ["[stage-1 3/3] COPY --from=build /src /app/"]);
    }
}

#[test]
fn a_command_behind_a_change_runs_on_what_is_restored() {
    for store in STORES {
        let world = World::on(store, "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n");
        world.write("src/main", "one\n");
        world.build(&[]);
        world.write("src/main", "two\n");
        let partial = world.wiped().build(&[]);
        assert_eq!(partial.tier(), "partial", "{:#}", partial.report);
        assert_eq!(partial.ran, ["[3/4] COPY src /app/src", "[4/4] RUN sum /built"]);
        assert_eq!(partial.steps("miss"), ["COPY src /app/src", "RUN sum /built"], "{:#}", partial.report);
    }
}

#[test]
fn new_metadata_alone_runs_nothing() {
    let world = files_last();
    world.build(&[]);
    let world = world.dockerfile(&format!("{FILES_LAST}LABEL a=b\n"));
    let labelled = world.wiped().build(&[]);
    assert_eq!(labelled.ran.len(), 0, "{:#}", labelled.report);
}

#[test]
fn a_daemon_that_lives_on_uses_its_own_cache() {
    for store in STORES {
        let world = World::on(store, "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n");
        world.write("src/main", "one\n");
        world.build(&[]);
        world.write("src/main", "two\n");
        let partial = world.build(&[]);
        assert_eq!(partial.ran, ["[3/4] COPY src /app/src", "[4/4] RUN sum /built"]);
        assert_eq!(partial.report["bytes"]["restored"], 0, "the daemon has it: {:#}", partial.report);
    }
}

#[test]
fn another_first_step_makes_all_of_it_anew() {
    let world = files_last();
    world.build(&[]);
    let world = world.dockerfile(&FILES_LAST.replace("/deps", "/other"));
    let changed = world.wiped().build(&[]);
    assert_eq!(changed.ran, ["[2/3] RUN sum /other", "[3/3] COPY src /app/src"]);
}

#[test]
fn no_cache_runs_everything() {
    let world = files_last();
    world.build(&[]);
    let forced = world.build(&["--no-cache"]);
    assert_eq!(forced.ran, ["[2/3] RUN sum /deps", "[3/3] COPY src /app/src"]);
}

#[test]
fn an_image_from_scratch() {
    let world = World::new(
        "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM scratch\nCOPY --from=build /out/app /\nCMD [\"/app\"]\n",
    );
    world.write("src/main", "one\n");
    assert_eq!(world.build(&[]).tier(), "cold");
    assert_eq!(world.wiped().build(&[]).tier(), "unchanged");
    world.write("src/main", "two\n");
    world.wiped().build(&[]);
}

#[test]
fn a_plan_says_what_a_build_will_do_and_runs_nothing() {
    let world = files_last();
    let before = world.hakobi("plan", &[]).exits(0).stdout;
    world.build(&[]);
    let same = world.wiped().hakobi("plan", &[]).exits(0).stdout;
    assert!(same.contains("nothing changed: no step runs"), "{same}");
    world.write("src/main", "two\n");
    let changed = world.hakobi("plan", &[]).exits(0).stdout;
    assert!(changed.contains("1 of 2 steps run: only file operations"), "{changed}");
    assert!(before.contains("2 of 2 steps run"), "{before}");
    assert_eq!(*world.daemon.ran.lock().unwrap(), [""; 0]);
}

#[test]
fn push_takes_an_image_out_of_the_daemon() {
    for store in STORES {
        let world = files_last_on(store);
        let image = format!("{}/app:1", world.registry.host());
        world.machine.hakobi(&["build", "-t", &image, "."]).exits(0);
        assert!(world.registry.tagged("app", "1").is_none(), "it was not to be pushed");
        world.machine.hakobi(&["push", &image]).exits(0);
        crate::scripted::plain::same_image(&world.image(), &world.plain(), "pushed");
    }
}
