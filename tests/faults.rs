//! Tests faults of a cache during a build: the build is right, the warning names the cause, and the next run is right.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use support::build::{Build, Built};
use support::engine::{C28, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::parts::unique;
use support::s3::{BUCKET, Fault, S3Server};
use support::small::Small;

/// A layer that takes a moment to keep, and one behind it that changes.
fn project(machine: &Machine) {
    let steps = "RUN head -c 20000000 /dev/urandom > /large\nCOPY src.txt /src.txt\nCMD [\"cat\", \"/src.txt\"]";
    let text = format!("FROM {}\n{steps}\n", base("busybox"));
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
}

fn on_s3(server: &S3Server, engine: &Engine) -> Machine {
    server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value))
}

/// The build of all these tests, with the cache at this place.
fn build<'a>(machine: &'a Machine, image: &str, cache: &str) -> Build<'a> {
    Build::new(machine).report("report.json").progress("plain").scope("main").tag(image).cache(cache)
}

/// A run on an empty machine, whose image says what its source says.
fn right(engine: &Engine, machine: &Machine, image: &str, cache: &str) -> Built {
    let built = build(machine, image, cache).done_on_empty(engine);
    assert_eq!(engine.docker(&["run", "--rm", image]), machine.read("src.txt").trim());
    built
}

#[test]
fn s3_breaks_while_a_build_is_kept_or_restored() {
    let engine = Engine::lock(D28);
    for (fault, words) in [(Fault::Expired, "ExpiredToken"), (Fault::SlowDown, "SlowDown"), (Fault::Reset, "")] {
        let server = S3Server::start();
        let machine = on_s3(&server, &engine);
        project(&machine);
        let (image, cache) = (unique("faults"), format!("s3://{BUCKET}/faults"));
        let right = || right(&engine, &machine, &image, &cache);
        // The third object is a layer.
        server.break_after(Method::PUT, 2, fault);
        let broken = right();
        assert!(broken.warns_of(words) && broken.warns_of("failed to save this build to"), "{fault:?}: {broken}");
        let required = build(&machine, &image, &cache).with(&["--cache-required"]).run().exits(4);
        assert!(required.stderr.contains(words), "{}", required.stderr);
        server.mend();
        assert_eq!(right().warnings(), [""; 0], "{fault:?}");
        assert_eq!(right().misses(), [""; 0], "{fault:?}");

        machine.write("src.txt", "two\n");
        // Whatever is known of the image by then, its layers do not come.
        server.break_after(Method::GET, 5, fault);
        let broken = right();
        assert!(broken.warns_of(words), "{fault:?}: {broken}");
        server.mend();
        right();
        assert_eq!(right().misses(), [""; 0], "{fault:?}");
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
    let built = right(&engine, &machine, &image, &cache);
    assert!(built.warns_of("no answer for"), "{built}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
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
            let children = machines.each_ref().map(|machine| build(machine, &image, &cache).start());
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            machines[0].hakobi(&["cache", "verify", "--cache", &cache]).exits(0);
        }
        // Whichever was kept last, the next one finds what is below the change.
        for machine in &machines {
            let next = right(&engine, machine, &image, &cache);
            assert!(next.misses().len() <= 1, "{next}");
            assert_eq!(right(&engine, machine, &image, &cache).misses(), [""; 0]);
        }
    }
}

#[test]
fn killed_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    killed(&S3Server::start(), folder.path().join("cache").to_str().unwrap(), 3);
}

#[test]
#[ignore = "long"]
fn long_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start();
    for cache in [folder.path().join("cache").to_str().unwrap(), &format!("s3://{BUCKET}/killed")] {
        killed(&server, cache, 6);
    }
}

/// Kills builds after parts of the time that a whole one takes.
fn killed(server: &S3Server, cache: &str, parts: u32) {
    let engine = Engine::lock(D28);
    let machine = on_s3(server, &engine);
    project(&machine);
    let image = unique("killed");
    let build = build(&machine, &image, cache);
    engine.wipe();
    let began = Instant::now();
    build.run().exits(0);
    let whole = began.elapsed();
    for part in 1..=parts {
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("20000000", &format!("2000000{part}")));
        engine.wipe();
        let mut child = build.start();
        std::thread::sleep(whole * part / parts);
        let _ = child.kill();
        child.wait().unwrap();
        // Nothing that is pointed to is missing, nothing is half there.
        machine.hakobi(&["cache", "verify", "--cache", cache]).exits(0);
        // Names of ours that it borrowed in the daemon may stay: it had no chance to give them back.
        assert_eq!(right(&engine, &machine, &image, cache).warnings(), [""; 0]);
    }
    assert_eq!(right(&engine, &machine, &image, cache).misses(), [""; 0]);
}

#[test]
fn a_full_disk() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique("full");
    let right = || right(&engine, &machine, &image, "../cache");
    let small = Small::mount(&machine.folder().join("../cache"), "8m");
    for _ in 0..2 {
        let built = right();
        assert!(built.warns_of("No space left"), "{built}");
    }
    drop(small);
    right();
    assert_eq!(right().misses(), [""; 0]);
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
        let mut child = build(&machine, &unique("signal"), &format!("s3://{BUCKET}/signal")).start();
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

/// A layer of the base image is on its way to the cache when the command fails.
#[test]
fn a_build_that_fails_aborts_uploads() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    let machine = on_s3(&server, &engine);
    let large = unique_image("large");
    machine.write("Dockerfile", &format!("FROM {}\nRUN head -c 20000000 /dev/urandom > /large\n", base("busybox")));
    Build::new(&machine).push(&large).run().exits(0);
    machine.write("Dockerfile", &format!("FROM {large}\nRUN sleep 4; false\n"));
    engine.wipe();
    server.break_below("blobs/", Method::PUT, Fault::Stall);
    let mut child = build(&machine, &unique("failed"), &format!("s3://{BUCKET}/failed")).start();
    let mut most = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        most = most.max(server.open_uploads());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((status.code(), server.open_uploads()), (Some(1), 0));
    assert!(most > 0, "there was no upload to abort");
}

/// Returns a machine whose TMPDIR is too small for the project's layer.
fn with_full_tmpdir(engine: &Engine) -> (tempfile::TempDir, Small, Machine) {
    let temporary = tempfile::tempdir().unwrap();
    let small = Small::mount(&temporary.path().join("small"), "4m");
    let machine = Machine::with(&engine.host()).set("TMPDIR", small.path().to_str().unwrap());
    project(&machine);
    (temporary, small, machine)
}

/// The build fails soon, and says what helps.
fn a_push_with_a_full_tmpdir_fails(name: &'static str) {
    let engine = Engine::fresh(name);
    let (_temporary, _small, machine) = with_full_tmpdir(&engine);
    let began = Instant::now();
    let failed = Build::new(&machine).cache("../cache").push(&unique_image("full-tmp")).run().exits(3);
    assert!(failed.stderr.contains("No space left") && failed.stderr.contains("set TMPDIR"), "{}", failed.stderr);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn a_push_with_a_full_tmpdir_fails_on_docker_28() {
    a_push_with_a_full_tmpdir_fails(D28);
}

#[test]
fn a_push_with_a_full_tmpdir_fails_on_the_containerd_store() {
    a_push_with_a_full_tmpdir_fails(C28);
}

/// The build succeeds with a warning: the cache lacks the layer, and the daemon has the image.
fn a_build_with_a_full_tmpdir_is_not_saved(name: &'static str) {
    let engine = Engine::lock(name);
    let (_temporary, _small, machine) = with_full_tmpdir(&engine);
    let built = right(&engine, &machine, &unique("full-tmp"), "../cache");
    assert!(built.warns_of("TMPDIR"), "{built}");
}

#[test]
fn a_build_with_a_full_tmpdir_is_not_saved_on_docker_28() {
    a_build_with_a_full_tmpdir_is_not_saved(D28);
}

#[test]
fn a_build_with_a_full_tmpdir_is_not_saved_on_the_containerd_store() {
    a_build_with_a_full_tmpdir_is_not_saved(C28);
}
