//! Tests faults of a cache during a build: the build is right, the warning names the cause, and the next run is right.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use support::engine::{C28, D28, Engine};
use support::machine::Machine;
use support::parts::{part, unique};
use support::s3::{BUCKET, Fault, S3Server};

/// A layer that takes a moment to keep, and one behind it that changes.
fn project(machine: &Machine) {
    let base = format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    let text =
        format!("FROM {base}\nRUN head -c 20000000 /dev/urandom > /large\nCOPY src.txt /src.txt\nCMD [\"cat\", \"/src.txt\"]\n");
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
}

fn on_s3(server: &S3Server, engine: &Engine) -> Machine {
    server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value))
}

fn arguments<'a>(image: &'a str, cache: &'a str) -> Vec<&'a str> {
    let options = ["build", "--network", "host", "--progress", "plain", "--report", "report.json", "--cache-scope", "main"];
    [&options[..], &["-t", image, "--cache", cache, "."]].concat()
}

/// A run on an empty machine, whose image says what its source says.
fn right(engine: &Engine, machine: &Machine, image: &str, cache: &str) -> Value {
    engine.wipe();
    machine.hakobi(&arguments(image, cache)).exits(0);
    assert_eq!(engine.docker(&["run", "--rm", image]), machine.read("src.txt").trim());
    machine.report("report.json")
}

fn misses(report: &Value) -> usize {
    report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == "miss").count()
}

fn warnings(report: &Value) -> String {
    report["cache"]["warnings"].to_string()
}

#[test]
fn s3_breaks_while_a_build_is_kept_or_restored() {
    let engine = Engine::lock(D28);
    for (fault, words) in [(Fault::Expired, "ExpiredToken"), (Fault::SlowDown, "SlowDown"), (Fault::Reset, "")] {
        let server = S3Server::start();
        let machine = on_s3(&server, &engine);
        project(&machine);
        let (image, cache) = (unique("faults"), format!("s3://{BUCKET}/faults"));
        // The third object is a layer.
        server.break_after(Method::PUT, 2, fault);
        let broken = right(&engine, &machine, &image, &cache);
        assert!(
            warnings(&broken).contains(words) && warnings(&broken).contains("failed to save this build to"),
            "{fault:?}: {broken:#}"
        );
        let required = [&["--cache-required"], &arguments(&image, &cache)[1..]].concat();
        let required = machine.hakobi(&[&["build"], &required[..]].concat()).exits(4);
        assert!(required.stderr.contains(words), "{}", required.stderr);
        server.mend();
        let mended = right(&engine, &machine, &image, &cache);
        assert_eq!(warnings(&mended), "[]", "{fault:?}");
        assert_eq!(misses(&right(&engine, &machine, &image, &cache)), 0, "{fault:?}");

        machine.write("src.txt", "two\n");
        // Whatever is known of the image by then, its layers do not come.
        server.break_after(Method::GET, 5, fault);
        let broken = right(&engine, &machine, &image, &cache);
        assert!(warnings(&broken).contains(words) && warnings(&broken) != "[]", "{fault:?}: {broken:#}");
        server.mend();
        right(&engine, &machine, &image, &cache);
        assert_eq!(misses(&right(&engine, &machine, &image, &cache)), 0, "{fault:?}");
    }
}

#[test]
fn a_store_that_never_answers_is_given_up() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    let machine = on_s3(&server, &engine);
    project(&machine);
    server.break_after(Method::GET, 0, Fault::Stall);
    let (image, cache) = (unique("silent"), format!("s3://{BUCKET}/silent"));
    let began = Instant::now();
    let report = right(&engine, &machine, &image, &cache);
    assert!(warnings(&report).contains("no answer for"), "{report:#}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}

fn start(machine: &Machine, arguments: &[&str]) -> Child {
    let mut command: Command = machine.command(env!("CARGO_BIN_EXE_hakobi"));
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn two_builds_are_kept_at_once() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    for cache in ["../../shared-cache", &format!("s3://{BUCKET}/two")] {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache.replace("../..", folder.path().to_str().unwrap());
        let image = unique("two");
        let machines = ["one\n", "two\n"].map(|text| {
            let machine = on_s3(&server, &engine);
            project(&machine);
            machine.write("src.txt", text);
            machine
        });
        for _ in 0..2 {
            engine.wipe();
            let children = machines.each_ref().map(|machine| start(machine, &arguments(&image, &cache)));
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            machines[0].hakobi(&["cache", "verify", "--cache", &cache]).exits(0);
        }
        // Whichever was kept last, the next one finds what is below the change.
        for machine in &machines {
            let next = right(&engine, machine, &image, &cache);
            assert!(misses(&next) <= 1, "{next:#}");
            assert_eq!(misses(&right(&engine, machine, &image, &cache)), 0);
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    for cache in [folder.path().join("cache").to_str().unwrap(), &format!("s3://{BUCKET}/killed")] {
        let machine = on_s3(&server, &engine);
        project(&machine);
        let image = unique("killed");
        engine.wipe();
        let began = Instant::now();
        machine.hakobi(&arguments(&image, cache)).exits(0);
        let whole = began.elapsed();
        for part in 1..=6 {
            machine.write("Dockerfile", &machine.read("Dockerfile").replace("20000000", &format!("2000000{part}")));
            engine.wipe();
            let mut child = start(&machine, &arguments(&image, cache));
            std::thread::sleep(whole * part / 6);
            let _ = child.kill();
            child.wait().unwrap();
            // Nothing that is pointed to is missing, nothing is half there.
            machine.hakobi(&["cache", "verify", "--cache", cache]).exits(0);
            // Names of ours that it borrowed in the daemon may stay: it had no chance to give them back.
            assert_eq!(warnings(&right(&engine, &machine, &image, cache)), "[]");
        }
        assert_eq!(misses(&right(&engine, &machine, &image, cache)), 0);
    }
}

/// A file system of its own, which is full soon.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "hakobi-test"]).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique("full");
    let small = Small::mount(&machine.folder().join("../cache"), "8m");
    for _ in 0..2 {
        let report = right(&engine, &machine, &image, "../cache");
        assert!(warnings(&report).contains("No space left"), "{report:#}");
    }
    drop(small);
    right(&engine, &machine, &image, "../cache");
    assert_eq!(misses(&right(&engine, &machine, &image, "../cache")), 0);
}

#[test]
fn a_signal_aborts_uploads() {
    let engine = Engine::lock(D28);
    for signal in ["TERM", "INT"] {
        let server = S3Server::start();
        let machine = on_s3(&server, &engine);
        project(&machine);
        engine.wipe();
        // Whatever comes after the first part stands still.
        server.break_after(Method::PUT, 3, Fault::Stall);
        let mut child = start(&machine, &arguments(&unique("signal"), &format!("s3://{BUCKET}/signal")));
        let began = Instant::now();
        while server.open_uploads() == 0 {
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(50));
        }
        let asked = Instant::now();
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(if signal == "TERM" { 143 } else { 130 }));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(server.open_uploads(), 0, "{signal}");
    }
}

#[test]
fn a_full_tmpdir() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let temporary = tempfile::tempdir().unwrap();
        let small = Small::mount(&temporary.path().join("small"), "4m");
        let machine = Machine::with(&engine.host()).set("TMPDIR", small.0.to_str().unwrap());
        project(&machine);
        // A push that has no room fails at once, and says what helps.
        engine.wipe();
        let tag = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("full-tmp"));
        let began = Instant::now();
        let options = ["build", "--network", "host", "--cache", "../cache", "--push", "-t", &tag, "."];
        let failed = machine.hakobi(&options).exits(3);
        assert!(failed.stderr.contains("No space left") && failed.stderr.contains("set TMPDIR"), "{name}: {}", failed.stderr);
        assert!(began.elapsed() < Duration::from_secs(40), "{name}: {:?}", began.elapsed());
        // What is only kept is a cache: the image is there all the same.
        let image = unique("full-tmp");
        let report = right(&engine, &machine, &image, "../cache");
        assert!(warnings(&report).contains("TMPDIR"), "{name}: {report:#}");
    }
}
