//! Tests the commands that use only the cache: restore, `docker build` and save in sequence, import and export, list and verify.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};

const CACHE: [&str; 4] = ["--cache", "../cache", "--cache-scope", "main"];

fn project(machine: &Machine) {
    let steps = "RUN date +%N > /slow\nCOPY src.txt /src.txt\nCMD [\"cat\", \"/src.txt\", \"/slow\"]";
    let text = format!("FROM {}\n{steps}\n", base("busybox"));
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
}

fn docker(machine: &Machine, arguments: &[&str]) -> Run {
    Run::of(machine.command(part("HAKOBI_TEST_DOCKER_CLI")).args(arguments)).exits(0)
}

/// A team's own line. BuildKit on the containerd store never looks at images of the daemon; the classic builder does.
fn docker_build(engine: &Engine, machine: &Machine, image: &str) {
    let mut command = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
    command.env("DOCKER_BUILDKIT", if engine.name() == C28 { "0" } else { "1" });
    command.args([
        "build",
        "--network",
        "host",
        "--cache-from",
        image,
        "--build-arg",
        "BUILDKIT_INLINE_CACHE=1",
        "-t",
        image,
        ".",
    ]);
    Run::of(&mut command).exits(0);
}

fn carried(machine: &Machine, command: &str, image: &str, transport: &str) -> Value {
    let arguments = [&[command, image, "--report", "report.json", "--transport", transport], &CACHE[..]].concat();
    machine.hakobi(&arguments).exits(0);
    machine.report("report.json")
}

fn moved(report: &Value, what: &str) -> (u64, u64) {
    (report["layers"][what].as_u64().unwrap(), report["bytes"][what].as_u64().unwrap())
}

/// Three lines of a buildspec, each run on an empty machine.
fn restore_build_save(name: &'static str, transport: &str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = format!("{}:latest", unique("carry"));

    let none = machine.hakobi(&[&["restore", &image], &CACHE[..]].concat()).exits(0);
    assert!(none.stderr.contains("the first run"), "{}", none.stderr);
    docker_build(&engine, &machine, &image);
    let first = carried(&machine, "save", &image, transport);
    assert!(moved(&first, "saved").0 >= 3, "{first:#}");
    let slow = |engine: &Engine| engine.docker(&["run", "--rm", &image]).lines().last().map(str::to_owned);
    let before = slow(&engine);

    // What the daemon has is not brought again, what the store has is not kept again.
    assert_eq!(moved(&carried(&machine, "restore", &image, transport), "restored"), (0, 0));
    assert_eq!(moved(&carried(&machine, "save", &image, transport), "saved"), (0, 0));

    for (text, layers) in [("one\n", 0), ("two\n", 1), ("three\n", 1)] {
        engine.wipe();
        machine.write("src.txt", text);
        let restored = carried(&machine, "restore", &image, transport);
        assert!(moved(&restored, "restored").0 >= 3, "{restored:#}");
        assert_eq!(restored["engine"]["transport"], transport);
        docker_build(&engine, &machine, &image);
        assert_eq!(slow(&engine), before, "the slow step is not run again: {text}");
        assert_eq!(engine.docker(&["run", "--rm", &image]).lines().next(), Some(text.trim()));
        let saved = carried(&machine, "save", &image, transport);
        // An unchanged image has the same layers; its configuration may have another time.
        assert_eq!(saved["layers"]["pushed"], 0);
        assert!(moved(&saved, "saved").1 < 50_000, "{text}: {saved:#}");
        assert!(moved(&saved, "saved").0 >= layers, "{text}: {saved:#}");
    }
    let names = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(
        !names.contains("127.0.0.1") || names.matches("127.0.0.1").count() == names.matches("base/busybox").count(),
        "{names}"
    );
}

#[test]
fn restore_build_save_on_docker_20() {
    restore_build_save(D20, "registry");
}

#[test]
fn restore_build_save_on_docker_28() {
    restore_build_save(D28, "registry");
}

#[test]
fn restore_build_save_on_the_containerd_store() {
    restore_build_save(C28, "registry");
}

#[test]
fn restore_build_save_on_docker_20_by_archives() {
    restore_build_save(D20, "archive");
}

#[test]
fn restore_build_save_on_docker_28_by_archives() {
    restore_build_save(D28, "archive");
}

#[test]
fn restore_build_save_on_the_containerd_store_by_archives() {
    restore_build_save(C28, "archive");
}

/// What teams keep today goes in, and comes out as what any daemon loads.
#[test]
fn tarballs_in_and_out() {
    for name in [D20, D28, C28] {
        let server = S3Server::start();
        let engine = Engine::fresh(name);
        let machine =
            server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value));
        project(&machine);
        let (one, other) = (format!("{}:1", unique("tarball")), format!("{}:latest", unique("tarball-b")));
        docker_build(&engine, &machine, &one);
        docker(&machine, &["tag", &one, &other]);
        let said = engine.docker(&["run", "--rm", &one]);
        docker(&machine, &["save", "-o", "both.tar", &one, &other]);
        let id = engine.docker(&["inspect", "--format", "{{.Id}}", &one]);
        docker(&machine, &["save", "-o", "nameless.tar", &id]);
        Run::of(machine.command("gzip").args(["-k", "both.tar"])).exits(0);
        std::fs::copy(machine.folder().join("both.tar.gz"), server.objects().join("both.tar.gz")).unwrap();
        engine.wipe();

        let url = format!("s3://{BUCKET}/both.tar.gz");
        let imported = machine.hakobi(&[&["import", &url], &CACHE[..]].concat()).exits(0);
        assert!(imported.stderr.contains("saved 3 layers"), "{}", imported.stderr);
        // The same again has nothing new.
        let again = machine.hakobi(&[&["import", "both.tar"], &CACHE[..]].concat()).exits(0);
        assert!(!again.stderr.contains("saved"), "{}", again.stderr);
        let nameless = machine.hakobi(&[&["import", "nameless.tar"], &CACHE[..]].concat());
        assert_eq!(nameless.code, 2, "{}", nameless.stderr);
        assert!(nameless.stderr.contains("without a name") && nameless.stderr.contains("hint"), "{}", nameless.stderr);
        machine.hakobi(&[&["import", "nameless.tar", "named:1"], &CACHE[..]].concat()).exits(0);

        for image in [&*one, &*other, "named:1"] {
            machine.hakobi(&[&["export", image, "-o", "out.tar"], &CACHE[..]].concat()).exits(0);
            docker(&machine, &["load", "-q", "-i", "out.tar"]);
            assert_eq!(engine.docker(&["run", "--rm", image]), said, "{name}: {image}");
            engine.wipe();
            machine.hakobi(&[&["restore", image], &CACHE[..]].concat()).exits(0);
            assert_eq!(engine.docker(&["run", "--rm", image]), said, "{name}: {image}");
            engine.wipe();
        }
        // A named pipe stays one.
        let fifo = "mkfifo pipe && { cat pipe > piped.tar & } && hakobi export \"$1\" -o pipe --cache ../cache --cache-scope main && wait";
        Run::of(machine.command("sh").args(["-c", fifo, "sh", &one])).exits(0);
        assert!(!machine.folder().join("pipe").is_file());
        machine.hakobi(&["import", "piped.tar", "--cache", "../piped"]).exits(0);
        // Through pipes.
        let piped = "hakobi export \"$1\" -o - --cache ../cache --cache-scope main -q | hakobi import - --cache ../other -q";
        Run::of(machine.command("sh").args(["-c", piped, "sh", &one])).exits(0);
        machine.hakobi(&["restore", &one, "--cache", "../other"]).exits(0);
        assert_eq!(engine.docker(&["run", "--rm", &one]), said, "{name}");
    }
}

#[test]
fn what_cannot_be_imported_or_exported() {
    let machine = Machine::without_daemon();
    machine.write("text", "no archive").write("cut.tar.gz", "\u{1f}");
    for (arguments, code, words) in [
        (&["import", "absent.tar"][..], 2, "absent.tar"),
        (&["import", "text"], 2, "not an archive of images"),
        (&["import", "https://example.test/a.tar"], 2, "cannot read an archive from https://example.test/a.tar"),
        (&["import", "s3://b"], 2, "s3://BUCKET/KEY"),
        (&["export", "app:1", "-o", "out.tar"], 4, "has no docker.io/library/app:1"),
        (&["export", "app@sha256:0123456789012345678901234567890123456789012345678901234567890123", "-o", "x"], 2, "digest"),
        (&["cache", "ls"], 4, "no cache at"),
        (&["restore", "app:1", "--cache-mode", "off"], 2, "requires a cache"),
    ] {
        let run = machine.hakobi(&[arguments, &CACHE[..2]].concat()).exits(code);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
    }
    assert!(!machine.folder().join("out.tar").exists());
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_store_is_looked_at_checked_and_mended() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique("upkeep");
    let build = Build::new(&machine).tag(&image).with(&CACHE);
    build.run_on_empty(&engine).exits(0);
    let cache = |arguments: &[&str]| machine.hakobi(&[&["cache"], arguments, &CACHE[..2]].concat());

    let listed = cache(&["ls"]).exits(0);
    assert!(listed.stdout.starts_with("SCOPE") && listed.stdout.contains(&format!("{image}:latest")), "{}", listed.stdout);
    let listed: Value = serde_json::from_str(&cache(&["ls", "--json"]).exits(0).stdout).unwrap();
    assert_eq!((&listed[0]["scope"], &listed[0]["layers"]), (&Value::from("main"), &Value::from(3)));
    let stat: Value = serde_json::from_str(&cache(&["stat", "--json"]).exits(0).stdout).unwrap();
    assert_eq!(stat["blobs"], stat["used_blobs"]);
    assert_eq!(stat["images"], 1);
    cache(&["verify"]).exits(0);

    let blobs = machine.folder().join("../cache/blobs/sha256");
    let layer = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let layer = layer.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    flip(&layer);
    let wrong = cache(&["verify"]).exits(4);
    let digest = layer.file_name().unwrap().to_str().unwrap();
    assert!(
        wrong.stdout.contains(&format!("damaged: sha256:{digest}")) && wrong.stdout.contains("incomplete: "),
        "{}",
        wrong.stdout
    );
    let mended = cache(&["verify", "--repair"]).exits(0);
    assert!(mended.stdout.contains("removed"), "{}", mended.stdout);
    assert!(!layer.exists());
    cache(&["verify"]).exits(0);
    for _ in 0..2 {
        build.run_on_empty(&engine).exits(0);
        assert_eq!(engine.docker(&["run", "--rm", &image]).lines().next(), Some("one"));
    }
    assert!(layer.exists(), "kept anew");
}
