//! The main job with a store, and no `latest` in a registry: cold, wiped and unchanged, wiped and changed, on every engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine};
use support::machine::Machine;
use support::parts::{part, unique};

fn steps(report: &Value, status: &str) -> Vec<String> {
    let steps = report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == status);
    let mut steps: Vec<String> = steps.map(|step| step["instruction"].as_str().unwrap_or_default().to_owned()).collect();
    steps.sort();
    steps
}

/// A project whose first stage is the slow one.
fn two_stages(machine: &Machine) {
    let base = format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nWORKDIR /src\nRUN date +%N > /toolchain\nCOPY src.txt .\nRUN cat src.txt /toolchain > /out\n\
                 FROM {base}\nRUN echo runtime > /runtime\nCOPY --from=build /out /out\nCMD [\"head\", \"-1\", \"/out\"]\n"
            ),
        )
        .write("src.txt", "one\n");
}

const BEHIND: [&str; 3] = ["COPY --from=build /out /out", "COPY src.txt .", "RUN cat src.txt /toolchain > /out"];

/// One run on a machine whose Docker is empty.
fn run(engine: &Engine, machine: &Machine, more: &[&str]) -> Value {
    engine.wipe();
    let mut arguments = vec!["build", "--network", "host", "--report", "report.json"];
    arguments.extend(more);
    arguments.push(".");
    machine.hakobi(&arguments).exits(0);
    machine.report("report.json")
}

fn the_store_alone_is_enough(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique("store");
    let arguments = ["-t", &image, "--cache", "../cache", "--cache-scope", "main"];

    let cold = run(&engine, &machine, &arguments);
    assert_eq!(cold["tier"], "cold");
    assert_eq!(cold["cache"]["scope"], "main");
    assert_eq!(cold["layers"]["restored"], 0);
    let saved = cold["layers"]["saved"].as_u64().unwrap();
    assert!(saved > 0 && cold["bytes"]["saved"].as_u64().unwrap() > 0, "{cold:#}");
    assert_eq!(cold["cache"]["warnings"], serde_json::json!([]));

    for again in 1..=3 {
        let report = run(&engine, &machine, &arguments);
        assert_eq!(steps(&report, "miss"), [""; 0], "run {again}");
        assert_eq!(report["layers"]["saved"], 0, "run {again}: {report:#}");
        assert_eq!(report["bytes"]["saved"], 0, "run {again}");
        assert!(report["layers"]["restored"].as_u64().unwrap() > 0, "run {again}: the image is wanted in the daemon");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "one");
    }
    for (changed, again) in [("two\n", false), ("three\n", false), ("three\n", true), ("four\n", false)] {
        machine.write("src.txt", changed);
        let report = run(&engine, &machine, &arguments);
        let behind: &[&str] = if again { &[] } else { &BEHIND };
        assert_eq!(steps(&report, "miss"), behind, "{changed}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), changed.trim());
    }
    // Another branch reads main's and writes its own; nothing of main's moves.
    let branch = ["-t", &image, "--cache", "../cache", "--cache-scope", "feature/x", "--cache-fallback", "main"];
    let report = run(&engine, &machine, &branch);
    assert_eq!(steps(&report, "miss"), [""; 0]);
    // One that may only read leaves everything as it is.
    machine.write("src.txt", "five\n");
    let mut only = branch.to_vec();
    only.extend(["--cache-mode", "read-only"]);
    let report = run(&engine, &machine, &only);
    assert_eq!(steps(&report, "miss"), BEHIND);
    assert_eq!(report["cache"]["mode"], "read-only");
    assert_eq!((&report["layers"]["saved"], &report["bytes"]["saved"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_store_on_docker_20() {
    the_store_alone_is_enough(D20);
}

#[test]
fn a_store_on_docker_28() {
    the_store_alone_is_enough(D28);
}

#[test]
fn a_store_on_the_containerd_store() {
    the_store_alone_is_enough(C28);
}
