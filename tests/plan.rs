//! Tests the plan on every engine. Cached steps transfer nothing, other steps run on only the layers that they need, and the
//! image equals that of `docker build`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::build::{Build, steps};
use support::engine::{C28, D20, D28, Engine, crane};
use support::image::{base, unique_image};
use support::machine::Machine;

/// A project whose first stage is the slow one.
fn two_stages(machine: &Machine) {
    let base = base("busybox");
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nWORKDIR /src\nRUN date +%N > /toolchain\nCOPY src.txt .\nRUN cat src.txt /toolchain > /out\n\
                 FROM {base}\nRUN date +%N > /runtime\nCOPY --from=build /out /out\nCMD [\"head\", \"-1\", \"/out\"]\n"
            ),
        )
        .write("src.txt", "one\n");
}

/// The build of all these tests.
fn build(machine: &Machine) -> Build<'_> {
    Build::cached(machine).report("report.json").strategy("auto")
}

fn what_changed_is_what_moves(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique_image("plan");
    let push = build(&machine).push(&image);

    let cold = push.done_on_empty(&engine).is("cold");
    assert_eq!(cold["strategy"], "auto");
    assert_eq!(cold.warnings(), [""; 0], "{cold}");
    assert_eq!(cold.layers("restored"), 0);

    let unchanged = push.done_on_empty(&engine).is("unchanged");
    assert_eq!(unchanged.digest(), cold.digest());
    for what in ["restored", "pushed", "saved"] {
        assert_eq!(unchanged.layers(what), 0, "{what}: {unchanged}");
    }
    assert_eq!(unchanged.bytes("context"), 0, "{unchanged}");
    assert_eq!(unchanged.misses(), [""; 0]);
    assert_eq!(unchanged["seconds"]["restore"], 0.0);
    assert_eq!(engine.docker(&["images", "-q"]), "", "nothing came into the daemon");

    // Metadata makes no layer.
    let labelled = push.clone().with(&["--label", "a=b"]).done_on_empty(&engine).is("unchanged");
    assert_ne!(labelled.digest(), cold.digest());
    assert_eq!((labelled.layers("restored"), labelled.layers("pushed")), (0, 0));
    assert!(crane(&["config", &image]).contains(r#""a":"b""#));

    // A source file: the build stage's state below it comes, and the runtime stage's. The plan alone says so and does nothing.
    machine.write("src.txt", "two\n");
    let before = objects(&machine, "").len();
    let arguments = ["plan", "--network", "host", "--cache", "../cache", "-t", &image];
    let told = machine.hakobi(&[&arguments[..], &["--format", "json", "."]].concat()).exits(0);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["tier"], "partial", "{told:#}");
    assert_eq!(steps(&told, "miss"), ["COPY src.txt .", "RUN cat src.txt /toolchain > /out", "COPY --from=build /out /out"]);
    let told = machine.hakobi(&[&arguments[..], &["."]].concat()).exits(0);
    assert!(told.stdout.contains("COPY src.txt .\n            src.txt changed\n"), "{}", told.stdout);
    assert!(told.stdout.ends_with("3 of 6 steps run\n"), "{}", told.stdout);
    assert_eq!(objects(&machine, "").len(), before);
    machine.hakobi(&["plan", "--cache-mode", "off", "."]).exits(2);
    let changed = push.done_on_empty(&engine).is("partial");
    let behind = ["COPY src.txt .", "RUN cat src.txt /toolchain > /out", "COPY --from=build /out /out"];
    assert_eq!(changed.misses(), behind, "{changed}");
    assert_eq!(changed.layers("pushed"), 1, "{changed}");
    assert!(changed["seconds"]["restore"].as_f64().unwrap() > 0.0, "{changed}");
    let why = [
        ("COPY src.txt .", "src.txt changed"),
        ("RUN cat src.txt /toolchain > /out", "it builds on `COPY src.txt .`, which changed"),
        ("COPY --from=build /out /out", "it builds on `RUN cat src.txt /toolchain > /out`, which changed"),
    ];
    for (instruction, reason) in why {
        assert_eq!(changed.reason(instruction), reason, "{changed}");
    }
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]).lines().last(), Some("two"));
    assert_eq!(push.done_on_empty(&engine).is("unchanged").digest(), changed.digest());

    // What the Dockerfile says last runs alone.
    let text = machine.read("Dockerfile") + "RUN echo last > /last\n";
    machine.write("Dockerfile", &text);
    let last = push.done_on_empty(&engine);
    assert_eq!(last.misses(), ["RUN echo last > /last"], "{last}");
    assert!(last.reasons().contains(&"a new or changed line"), "{last}");
    assert!(last["steps"].as_array().unwrap().iter().filter(|step| step["status"] == "hit").all(|step| step["key"] != ""));

    // Into the daemon: by its own pull.
    let loaded = build(&machine).tag("local:1").with(&["--load"]).done_on_empty(&engine);
    assert_eq!(loaded.misses(), [""; 0], "{loaded}");
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", "local:1"]), "two");
    // And what went back to what it was is found again.
    machine.write("src.txt", "one\n");
    let back = push.done_on_empty(&engine);
    assert_eq!(back.misses(), ["RUN echo last > /last"], "{back}");
}

#[test]
fn what_changed_is_what_moves_on_docker_20() {
    what_changed_is_what_moves(D20);
}

#[test]
fn what_changed_is_what_moves_on_docker_28() {
    what_changed_is_what_moves(D28);
}

#[test]
fn what_changed_is_what_moves_on_the_containerd_store() {
    what_changed_is_what_moves(C28);
}

/// All objects of the store below a folder.
fn objects(machine: &Machine, below: &str) -> Vec<std::path::PathBuf> {
    let mut open = vec![machine.folder().join("../cache").join(below)];
    let mut out = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { out.push(path) }
        }
    }
    out
}

fn layers(machine: &Machine) -> Vec<std::path::PathBuf> {
    let is_layer = |path: &std::path::PathBuf| std::fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
    objects(machine, "blobs").into_iter().filter(is_layer).collect()
}

fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// What the image prints, and that it is the one that was pushed last.
fn prints(engine: &Engine, image: &str) -> String {
    engine.docker(&["run", "--rm", "--pull", "always", "--network", "host", image]).lines().last().unwrap().to_owned()
}

/// Every fault of the store is a warning and a colder build; what is built is right, and the next run is whole again.
fn faults_cost_only_time(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let (image, other) = (unique_image("elsewhere"), unique_image("elsewhere"));
    let to = |image: &str| build(&machine).push(image).done_on_empty(&engine);
    to(&image);

    // A store that lacks what it remembers, and a registry that does not have it either.
    layers(&machine).iter().for_each(|layer| std::fs::remove_file(layer).unwrap());
    let cold = to(&other).is("cold");
    assert_eq!(cold.warnings(), [""; 0], "{cold}");
    assert!(cold.log().contains("cached layers are missing"), "{cold}");
    assert_eq!(prints(&engine, &other), "one");
    let whole = to(&unique_image("elsewhere")).is("unchanged");
    assert_eq!(whole.warnings(), [""; 0], "{whole}");

    // Damaged layers: where nothing changed, and where something did.
    layers(&machine).iter().for_each(|layer| damage(layer));
    let other = unique_image("elsewhere");
    let damaged = to(&other);
    assert_ne!(damaged.warnings(), [""; 0], "{damaged}");
    assert_eq!(prints(&engine, &other), "one");
    layers(&machine).iter().for_each(|layer| damage(layer));
    machine.write("src.txt", "two\n");
    let damaged = to(&image);
    assert_eq!(prints(&engine, &image), "two", "{damaged}");
    machine.hakobi(&["cache", "verify", "--cache", "../cache", "--repair"]);
    assert_eq!(prints(&engine, &image), "two");

    // Records that say nothing.
    objects(&machine, "steps").iter().for_each(|record| damage(record));
    to(&image).is("cold");
    assert_eq!(prints(&engine, &image), "two");
    to(&image).is("unchanged");
}

/// A branch reads main's records and writes its own; a build that may only read writes nothing.
fn a_branch_reads_what_main_has(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique_image("branch");
    let main = build(&machine).push(&image);
    main.done_on_empty(&engine);
    let before = objects(&machine, "").len();
    let branch = main.clone().scope("branch").with(&["--cache-fallback", "local"]);
    let only = branch.clone().with(&["--cache-mode", "read-only"]);
    only.done_on_empty(&engine).is("unchanged");
    machine.write("src.txt", "two\n");
    only.done_on_empty(&engine).is("partial");
    assert_eq!(objects(&machine, "").len(), before);
    assert_eq!(prints(&engine, &image), "two");
    branch.done_on_empty(&engine).is("partial");
    branch.done_on_empty(&engine).is("unchanged");
    // Nothing of a branch is main's.
    main.done_on_empty(&engine).is("partial");
}

#[test]
fn faults_cost_only_time_on_docker_20() {
    faults_cost_only_time(D20);
}

#[test]
fn faults_cost_only_time_on_docker_28() {
    faults_cost_only_time(D28);
}

#[test]
fn faults_cost_only_time_on_the_containerd_store() {
    faults_cost_only_time(C28);
}

#[test]
fn a_branch_reads_what_main_has_on_docker_20() {
    a_branch_reads_what_main_has(D20);
}

#[test]
fn a_branch_reads_what_main_has_on_docker_28() {
    a_branch_reads_what_main_has(D28);
}

#[test]
fn a_branch_reads_what_main_has_on_the_containerd_store() {
    a_branch_reads_what_main_has(C28);
}
