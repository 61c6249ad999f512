//! The plan, on every engine: what it says is kept moves nothing, what is open runs on just what it needs, and what comes out is
//! what a plain build gives.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine, crane};
use support::image::{base, steps};
use support::machine::Machine;
use support::parts::{part, unique};

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

/// One run on a machine whose Docker is empty.
fn run(engine: &Engine, machine: &Machine, more: &[&str]) -> Value {
    engine.wipe();
    let mut arguments =
        vec!["build", "--strategy", "auto", "--network", "host", "--report", "report.json", "--cache", "../cache"];
    arguments.extend(more);
    arguments.push(".");
    machine.hakobi(&arguments).exits(0);
    machine.report("report.json")
}

fn what_changed_is_what_moves(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("plan"));
    let push = ["-t", &*image, "--push"];

    let cold = run(&engine, &machine, &push);
    assert_eq!(cold["strategy"], "auto");
    assert_eq!(cold["tier"], "cold", "{cold:#}");
    assert_eq!(cold["cache"]["warnings"], serde_json::json!([]), "{cold:#}");
    assert_eq!(cold["layers"]["restored"], 0);
    let digest = cold["images"][0]["digest"].clone();

    let unchanged = run(&engine, &machine, &push);
    assert_eq!(unchanged["tier"], "unchanged", "{unchanged:#}");
    assert_eq!(unchanged["images"][0]["digest"], digest);
    for (what, kind) in [("layers", "restored"), ("layers", "pushed"), ("layers", "saved"), ("bytes", "context")] {
        assert_eq!(unchanged[what][kind], 0, "{what} {kind}: {unchanged:#}");
    }
    assert_eq!(steps(&unchanged, "miss"), [""; 0]);
    assert_eq!(unchanged["seconds"]["restore"], 0.0);
    assert_eq!(engine.docker(&["images", "-q"]), "", "nothing came into the daemon");

    // Metadata makes no layer.
    let labelled = run(&engine, &machine, &[&push[..], &["--label", "a=b"]].concat());
    assert_eq!(labelled["tier"], "unchanged", "{labelled:#}");
    assert_ne!(labelled["images"][0]["digest"], digest);
    assert_eq!((&labelled["layers"]["restored"], &labelled["layers"]["pushed"]), (&Value::from(0), &Value::from(0)));
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
    let changed = run(&engine, &machine, &push);
    assert_eq!(changed["tier"], "partial", "{changed:#}");
    let behind = ["COPY src.txt .", "RUN cat src.txt /toolchain > /out", "COPY --from=build /out /out"];
    assert_eq!(steps(&changed, "miss"), behind, "{changed:#}");
    assert_eq!(changed["layers"]["pushed"], 1, "{changed:#}");
    assert!(changed["seconds"]["restore"].as_f64().unwrap() > 0.0, "{changed:#}");
    let why = [
        ("COPY src.txt .", "src.txt changed"),
        ("RUN cat src.txt /toolchain > /out", "it builds on `COPY src.txt .`, which changed"),
        ("COPY --from=build /out /out", "it builds on `RUN cat src.txt /toolchain > /out`, which changed"),
    ];
    for (instruction, reason) in why {
        let step = changed["steps"].as_array().unwrap().iter().find(|step| step["instruction"] == instruction).unwrap();
        assert_eq!(step["reason"], reason, "{changed:#}");
    }
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]).lines().last(), Some("two"));
    let again = run(&engine, &machine, &push);
    assert_eq!(again["tier"], "unchanged", "{again:#}");
    assert_eq!(again["images"][0]["digest"], changed["images"][0]["digest"]);

    // What the Dockerfile says last runs alone.
    let text = machine.read("Dockerfile") + "RUN echo last > /last\n";
    machine.write("Dockerfile", &text);
    let last = run(&engine, &machine, &push);
    assert_eq!(steps(&last, "miss"), ["RUN echo last > /last"], "{last:#}");
    let reasons: Vec<&str> = last["steps"].as_array().unwrap().iter().filter_map(|step| step["reason"].as_str()).collect();
    assert!(reasons.contains(&"a new or changed line"), "{last:#}");
    assert!(last["steps"].as_array().unwrap().iter().filter(|step| step["status"] == "hit").all(|step| step["key"] != ""));

    // Into the daemon: by its own pull.
    let loaded = run(&engine, &machine, &["-t", "local:1", "--load"]);
    assert_eq!(steps(&loaded, "miss"), [""; 0], "{loaded:#}");
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", "local:1"]), "two");
    // And what went back to what it was is found again.
    machine.write("src.txt", "one\n");
    let back = run(&engine, &machine, &push);
    assert_eq!(steps(&back, "miss"), ["RUN echo last > /last"], "{back:#}");
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
    let open = part("HAKOBI_TEST_REGISTRY_OPEN");
    let elsewhere = || format!("{open}/{}:1", unique("elsewhere"));
    let image = elsewhere();
    let to = |image: &str, more: &[&str]| run(&engine, &machine, &[&["-t", image, "--push"], more].concat());
    let warnings = |report: &Value| report["cache"]["warnings"].as_array().unwrap().len();
    to(&image, &[]);

    // A store that lacks what it remembers, and a registry that does not have it either.
    layers(&machine).iter().for_each(|layer| std::fs::remove_file(layer).unwrap());
    let other = elsewhere();
    let report = to(&other, &[]);
    assert_eq!(warnings(&report), 1, "{report:#}");
    assert_eq!(report["tier"], "cold", "{report:#}");
    assert_eq!(prints(&engine, &other), "one");
    let whole = to(&elsewhere(), &[]);
    assert_eq!((&whole["tier"], warnings(&whole)), (&Value::from("unchanged"), 0), "{whole:#}");

    // Damaged layers: where nothing changed, and where something did.
    layers(&machine).iter().for_each(|layer| damage(layer));
    let other = elsewhere();
    let report = to(&other, &[]);
    assert!(warnings(&report) > 0, "{report:#}");
    assert_eq!(prints(&engine, &other), "one");
    layers(&machine).iter().for_each(|layer| damage(layer));
    machine.write("src.txt", "two\n");
    let report = to(&image, &[]);
    assert_eq!(prints(&engine, &image), "two", "{report:#}");
    machine.hakobi(&["cache", "verify", "--cache", "../cache", "--repair"]);
    assert_eq!(prints(&engine, &image), "two");

    // Records that say nothing.
    objects(&machine, "steps").iter().for_each(|record| damage(record));
    let report = to(&image, &[]);
    assert_eq!(report["tier"], "cold", "{report:#}");
    assert_eq!(prints(&engine, &image), "two");
    assert_eq!(to(&image, &[])["tier"], "unchanged");

    // A branch reads main's and writes its own; one that may only read writes nothing.
    let before = objects(&machine, "").len();
    let branch = ["--cache-scope", "branch", "--cache-fallback", "local"];
    let only = to(&image, &[&branch[..], &["--cache-mode", "read-only"]].concat());
    assert_eq!(only["tier"], "unchanged", "{only:#}");
    machine.write("src.txt", "three\n");
    let only = to(&image, &[&branch[..], &["--cache-mode", "read-only"]].concat());
    assert_eq!(only["tier"], "partial", "{only:#}");
    assert_eq!(objects(&machine, "").len(), before);
    assert_eq!(prints(&engine, &image), "three");
    assert_eq!(to(&image, &branch)["tier"], "partial");
    assert_eq!(to(&image, &branch)["tier"], "unchanged");
    // Nothing of a branch is main's.
    assert_eq!(to(&image, &[])["tier"], "partial");
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
