//! The main job with a store, and no `latest` in a registry: cold, wiped and unchanged, wiped and changed, on every engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};

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

/// The bytes of all layers that a directory store has.
fn of_layers(machine: &Machine) -> u64 {
    let blobs = std::fs::read_dir(machine.folder().join("../cache/blobs/sha256")).unwrap().map(|entry| entry.unwrap());
    let layers = blobs.filter(|blob| std::fs::read(blob.path()).unwrap().starts_with(&[0x1f, 0x8b]));
    layers.map(|blob| blob.metadata().unwrap().len()).sum()
}

fn the_store_alone_is_enough(name: &'static str, transport: &str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique("store");
    let arguments = ["-t", &image, "--cache", "../cache", "--cache-scope", "main", "--transport", transport];

    let cold = run(&engine, &machine, &arguments);
    assert_eq!(cold["engine"]["transport"], transport);
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
        // Each layer comes once, whoever asks for it: the daemon's own downloads are single flights.
        assert!(report["bytes"]["restored"].as_u64() <= Some(of_layers(&machine)), "run {again}: {report:#}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "one");
    }
    for (changed, again) in [("two\n", false), ("three\n", false), ("three\n", true), ("four\n", false)] {
        machine.write("src.txt", changed);
        let report = run(&engine, &machine, &arguments);
        let behind: &[&str] = if again { &[] } else { &BEHIND };
        assert_eq!(steps(&report, "miss"), behind, "{changed}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), changed.trim());
    }
    // A daemon that has everything gets nothing, and nothing of it is kept again.
    let warm = machine.hakobi(&[&["build", "--network", "host", "--report", "report.json"], &arguments[..], &["."]].concat());
    warm.exits(0);
    let warm = machine.report("report.json");
    assert_eq!(steps(&warm, "miss"), [""; 0]);
    for (what, where_to) in [("layers", "restored"), ("layers", "saved"), ("bytes", "restored"), ("bytes", "saved")] {
        assert_eq!(warm[what][where_to], 0, "{what} {where_to}: {warm:#}");
    }
    let names = engine.docker(&["images", "--format", "{{.Repository}}"]);
    assert!(!names.contains("hakobi") && !names.contains("127.0.0.1"), "what was borrowed is given back: {names}");
    // Another branch reads main's and writes its own; nothing of main's moves.
    let branch = [&arguments[..5], &["feature/x", "--cache-fallback", "main", "--transport", transport]].concat();
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
    the_store_alone_is_enough(D20, "registry");
}

#[test]
fn a_store_on_docker_20_by_archives() {
    the_store_alone_is_enough(D20, "archive");
}

#[test]
fn a_store_on_docker_28() {
    the_store_alone_is_enough(D28, "registry");
}

#[test]
fn a_store_on_docker_28_by_archives() {
    the_store_alone_is_enough(D28, "archive");
}

#[test]
fn a_store_on_the_containerd_store() {
    the_store_alone_is_enough(C28, "registry");
}

#[test]
fn a_store_on_the_containerd_store_by_archives() {
    the_store_alone_is_enough(C28, "archive");
}

/// S3 and a registry at once, and a push from the store where the registry has lost everything.
fn s3_and_a_registry(name: &'static str, transport: &str) {
    let server = S3Server::start();
    let engine = Engine::lock(name);
    let machine = server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value));
    two_stages(&machine);
    let open = part("HAKOBI_TEST_REGISTRY_OPEN");
    let (image, other) = (format!("{open}/{}:1", unique("s3")), format!("{open}/{}:1", unique("s3-other")));
    let cache = format!("s3://{BUCKET}/team?storage-class=standard");
    let arguments = ["-t", &image, "--push", "--cache", &cache, "--cache-scope", "main", "--transport", transport];

    let cold = run(&engine, &machine, &arguments);
    assert_eq!(cold["cache"]["url"], *cache);
    assert_eq!(cold["layers"]["pushed"], 2, "{cold:#}");
    let digest = cold["images"][0]["digest"].clone();
    let unchanged = run(&engine, &machine, &arguments);
    assert_eq!(steps(&unchanged, "miss"), [""; 0]);
    assert_eq!((&unchanged["layers"]["pushed"], &unchanged["layers"]["saved"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(unchanged["images"][0]["digest"], digest, "nothing changed, so the digest stays");

    // Another repository gets every layer from the store.
    let elsewhere = run(&engine, &machine, &[&["-t", &other], &arguments[..]].concat());
    assert_eq!(elsewhere["cache"]["warnings"], serde_json::json!([]));
    machine.write("src.txt", "two\n");
    let changed = run(&engine, &machine, &arguments);
    assert_eq!(steps(&changed, "miss"), BEHIND);
    assert_eq!(changed["layers"]["pushed"], 1);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]).lines().last(), Some("two"));
}

#[test]
fn s3_and_a_registry_on_docker_20() {
    s3_and_a_registry(D20, "registry");
}

#[test]
fn s3_and_a_registry_on_docker_20_by_archives() {
    s3_and_a_registry(D20, "archive");
}

#[test]
fn s3_and_a_registry_on_docker_28() {
    s3_and_a_registry(D28, "registry");
}

#[test]
fn s3_and_a_registry_on_docker_28_by_archives() {
    s3_and_a_registry(D28, "archive");
}

#[test]
fn s3_and_a_registry_on_the_containerd_store() {
    s3_and_a_registry(C28, "registry");
}

#[test]
fn s3_and_a_registry_on_the_containerd_store_by_archives() {
    s3_and_a_registry(C28, "archive");
}

/// Every fault of the store is a warning and a colder build; what is built is right, and the next run mends it.
#[test]
fn faults_of_the_store_cost_only_time() {
    for (name, transport) in [(D20, "registry"), (D28, "registry"), (C28, "registry"), (D28, "archive")] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        two_stages(&machine);
        let image = unique("store-faults");
        let arguments = ["-t", &image, "--cache", "../cache", "--cache-scope", "main", "--transport", transport];
        run(&engine, &machine, &arguments);
        // A byte of every blob that is a layer is flipped.
        let blobs = machine.folder().join("../cache/blobs/sha256");
        for entry in std::fs::read_dir(&blobs).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        machine.write("src.txt", "two\n");
        let damaged = run(&engine, &machine, &arguments);
        assert!(damaged["cache"]["warnings"].to_string().contains("damaged"), "{name}: {damaged:#}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "two");
        machine.write("src.txt", "three\n");
        let mended = run(&engine, &machine, &arguments);
        assert_eq!(mended["cache"]["warnings"], serde_json::json!([]), "{name}");
        assert_eq!(steps(&mended, "miss"), BEHIND, "{name}");
    }
}

/// The store that cannot be used: warned of, or exit 4 where it is required.
#[test]
fn a_store_that_cannot_be_used() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host()).set("AWS_EC2_METADATA_DISABLED", "true");
    machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    machine.write("../newer/hakobi.json", "{\"version\":2}");
    for (cache, words) in
        [("../newer", "layout 2"), ("s3://nowhere/x", "AWS_REGION"), ("s3://nowhere/x?region=eu-west-1", "no AWS credentials")]
    {
        let arguments = ["build", "--cache", cache, "--report", "report.json", "."];
        let run = machine.hakobi(&arguments).exits(0);
        assert!(run.stderr.contains(words), "{}", run.stderr);
        assert!(machine.report("report.json")["cache"]["warnings"].to_string().contains(words));
        let mut required = arguments.to_vec();
        required.push("--cache-required");
        let run = machine.hakobi(&required).exits(4);
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert_eq!(std::fs::read_to_string(machine.folder().join("../newer/hakobi.json")).unwrap(), "{\"version\":2}");
}

/// A daemon that cannot reach this host is found out, and the other way is taken.
#[test]
fn a_daemon_that_is_not_on_this_host() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique("far");
    for misses in [6, 0] {
        engine.wipe();
        // The socket is all that the two networks share.
        let mut far = machine.command("unshare");
        far.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "hakobi", env!("CARGO_BIN_EXE_hakobi")]);
        far.args(["build", "--network", "host", "-t", &image, "--cache", "../cache", "--report", "report.json", "."]);
        Run::of(&mut far).exits(0);
        let report = machine.report("report.json");
        assert_eq!(report["engine"]["transport"], "archive");
        assert_eq!(steps(&report, "miss").len(), misses, "{report:#}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "one");
    }
}
