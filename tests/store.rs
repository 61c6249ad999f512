//! Tests builds with a cache, and without `latest` in a registry, on every engine: cold, then unchanged and changed after a wipe.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::unique_image;
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};

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

/// What runs if the source changed.
const BEHIND: [&str; 3] = ["COPY src.txt .", "RUN cat src.txt /toolchain > /out", "COPY --from=build /out /out"];

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
    let any = Build::cached(&machine).report("report.json").tag(&image).transport(transport);
    let main = any.clone().scope("main");

    let cold = main.done_on_empty(&engine).is("cold");
    assert_eq!(cold["engine"]["transport"], transport);
    assert_eq!(cold["cache"]["scope"], "main");
    assert_eq!(cold.layers("restored"), 0);
    assert!(cold.layers("saved") > 0 && cold.bytes("saved") > 0, "{cold}");
    assert_eq!(cold.warnings(), [""; 0]);

    for again in 1..=3 {
        let built = main.done_on_empty(&engine);
        assert_eq!(built.misses(), [""; 0], "run {again}");
        assert_eq!((built.layers("saved"), built.bytes("saved")), (0, 0), "run {again}: {built}");
        assert!(built.layers("restored") > 0, "run {again}: the image is wanted in the daemon");
        // Each layer comes once, whoever asks for it: the daemon's own downloads are single flights.
        assert!(built.bytes("restored") <= of_layers(&machine), "run {again}: {built}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "one");
    }
    for (changed, again) in [("two\n", false), ("three\n", false), ("three\n", true), ("four\n", false)] {
        machine.write("src.txt", changed);
        let behind: &[&str] = if again { &[] } else { &BEHIND };
        assert_eq!(main.done_on_empty(&engine).misses(), behind, "{changed}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), changed.trim());
    }
    // A daemon that has everything gets nothing, and nothing of it is kept again.
    let warm = main.done();
    assert_eq!(warm.misses(), [""; 0]);
    for what in ["restored", "saved"] {
        assert_eq!((warm.layers(what), warm.bytes(what)), (0, 0), "{what}: {warm}");
    }
    let names = engine.docker(&["images", "--format", "{{.Repository}}"]);
    assert!(!names.contains("hakobi") && !names.contains("127.0.0.1"), "what was borrowed is given back: {names}");
    // Another branch reads main's and writes its own; nothing of main's moves.
    let branch = any.scope("feature/x").with(&["--cache-fallback", "main"]);
    assert_eq!(branch.done_on_empty(&engine).misses(), [""; 0]);
    // One that may only read leaves everything as it is.
    machine.write("src.txt", "five\n");
    let only = branch.with(&["--cache-mode", "read-only"]).done_on_empty(&engine);
    assert_eq!(only.misses(), BEHIND);
    assert_eq!(only["cache"]["mode"], "read-only");
    assert_eq!((only.layers("saved"), only.bytes("saved")), (0, 0));
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
    let (image, other) = (unique_image("s3"), unique_image("s3-other"));
    let cache = format!("s3://{BUCKET}/team?storage-class=standard");
    let build = Build::new(&machine).report("report.json").cache(&cache).scope("main").transport(transport).push(&image);

    let cold = build.done_on_empty(&engine);
    assert_eq!(cold["cache"]["url"], *cache);
    assert_eq!(cold.layers("pushed"), 2, "{cold}");
    let unchanged = build.done_on_empty(&engine);
    assert_eq!(unchanged.misses(), [""; 0]);
    assert_eq!((unchanged.layers("pushed"), unchanged.layers("saved")), (0, 0));
    assert_eq!(unchanged.digest(), cold.digest(), "nothing changed, so the digest stays");

    // Another repository gets every layer from the store.
    assert_eq!(build.clone().tag(&other).done_on_empty(&engine).warnings(), [""; 0]);
    machine.write("src.txt", "two\n");
    let changed = build.done_on_empty(&engine);
    assert_eq!(changed.misses(), BEHIND);
    assert_eq!(changed.layers("pushed"), 1);
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

/// Damaged layers are a warning and a colder build; what is built is right, and the next run mends the store.
fn damaged_layers_cost_only_time(name: &'static str, transport: &str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let image = unique("store-faults");
    let build = Build::cached(&machine).report("report.json").tag(&image).scope("main").transport(transport);
    build.done_on_empty(&engine);
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
    let damaged = build.done_on_empty(&engine);
    assert!(damaged.warns_of("damaged"), "{damaged}");
    assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "two");
    machine.write("src.txt", "three\n");
    let mended = build.done_on_empty(&engine);
    assert_eq!(mended.warnings(), [""; 0]);
    assert_eq!(mended.misses(), BEHIND);
}

#[test]
fn damaged_layers_cost_only_time_on_docker_20() {
    damaged_layers_cost_only_time(D20, "registry");
}

#[test]
fn damaged_layers_cost_only_time_on_docker_28() {
    damaged_layers_cost_only_time(D28, "registry");
}

#[test]
fn damaged_layers_cost_only_time_on_the_containerd_store() {
    damaged_layers_cost_only_time(C28, "registry");
}

#[test]
fn damaged_layers_cost_only_time_by_archives() {
    damaged_layers_cost_only_time(D28, "archive");
}

/// The store that cannot be used: warned of, or exit 4 where it is required.
#[test]
fn a_store_that_cannot_be_used() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host()).set("AWS_EC2_METADATA_DISABLED", "true");
    machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    machine.write("../newer/hakobi.json", "{\"version\":2}");
    for (cache, words) in [
        ("../newer", "layout version is 2"),
        ("s3://nowhere/x", "AWS_REGION"),
        ("s3://nowhere/x?region=eu-west-1", "no AWS credentials"),
    ] {
        let build = Build::new(&machine).report("report.json").cache(cache);
        let built = build.done();
        assert!(built.log().contains(words) && built.warns_of(words), "{built}");
        let run = build.with(&["--cache-required"]).run().exits(4);
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
    let build = Build::cached(&machine).tag(&image);
    for misses in [6, 0] {
        engine.wipe();
        // The socket is all that the two networks share.
        let mut far = machine.command("unshare");
        far.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "hakobi", env!("CARGO_BIN_EXE_hakobi")]);
        let built = build.built(Run::of(far.args(build.arguments())).exits(0));
        assert_eq!(built["engine"]["transport"], "archive");
        assert_eq!(built.misses().len(), misses, "{built}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).trim(), "one");
    }
}
