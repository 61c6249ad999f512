//! The cache in S3, with faults at each of its requests: a build is right, and the next ones have a right cache.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault_proxy::{Asked, Fault, FaultProxy};
use crate::world::{Place, World};

const COMMAND: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";

/// Before the first build, or before a build with a changed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Change,
}

fn world(before: Before) -> World {
    let world = World::new(COMMAND).with_cache(Place::S3);
    world.write("src/main", "one\n");
    if before == Before::Change {
        world.build(&[]);
        world.write("src/main", "two\n");
        world.wiped();
    }
    world
}

fn proxy(world: &World) -> &FaultProxy {
    &world.s3.as_ref().unwrap().1
}

/// Gives the request with this number, counted from now, a fault. Returns whether it has come.
fn fault_at(world: &World, number: u64, fault: Fault) -> Arc<AtomicBool> {
    let (first, came) = (proxy(world).asked(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&came);
    proxy(world).set(move |asked: &Asked| {
        (asked.number == first + number).then(|| {
            told.store(true, Ordering::SeqCst);
            fault.clone()
        })
    });
    came
}

/// Builds, and kills the build as soon as that request has come. Returns how it ended if it ended before.
fn killed_at(world: &World, number: u64) -> Option<ExitStatus> {
    let came = fault_at(world, number, Fault::StallAfter);
    let mut child = world.command("build", &["--push"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if came.load(Ordering::SeqCst) {
            // The server executes the request meanwhile, or not: both happen.
            std::thread::sleep(Duration::from_millis(number % 3 * 5));
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn killed_at_every_request(before: Before) {
    for number in 0.. {
        let world = world(before);
        let ended = killed_at(&world, number);
        proxy(&world).mend();
        let what = format!("{before:?}, request {number}");
        // A build that was killed before its first write leaves no cache.
        let verified = world.machine.hakobi(&["cache", "verify", "--cache", "s3://cache/app"]);
        assert!(verified.code == 0 || verified.stderr.contains("no cache at"), "{what}: {}{}", verified.stdout, verified.stderr);
        let built = world.wiped().build(&[]);
        assert_eq!(built.warnings(), [""; 0], "{what}");
        assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
        if let Some(status) = ended {
            assert!(status.success() && number > 8, "{what}: {status}");
            return;
        }
    }
}

#[test]
fn a_first_build_that_is_killed_at_any_request_leaves_a_right_cache() {
    killed_at_every_request(Before::Nothing);
}

#[test]
fn a_later_build_that_is_killed_at_any_request_leaves_a_right_cache() {
    killed_at_every_request(Before::Change);
}

/// Each fault, at each request in turn: the image is right, with at most one warning, and the cache is whole after the next build.
#[test]
fn a_fault_at_any_request_costs_at_most_the_cache() {
    let faults = [
        Fault::s3(403, "AccessDenied"),
        Fault::s3(404, "NoSuchKey"),
        Fault::s3(400, "ExpiredToken"),
        Fault::OtherEtag,
        Fault::Truncate,
        Fault::Flip,
        Fault::Lost,
        Fault::s3(503, "SlowDown"),
    ];
    for (turn, fault) in faults.into_iter().enumerate() {
        // Every third request, another one for each fault: all of them would take minutes.
        for number in (turn as u64 % 3..).step_by(3) {
            let world = world(Before::Change);
            let came = fault_at(&world, number, fault.clone());
            let built = world.build(&[]);
            proxy(&world).mend();
            let what = format!("{fault:?} at request {number}: {}", built.stderr);
            assert!(built.warnings().len() <= 1, "{what}");
            let next = world.wiped().build(&[]);
            assert_eq!(next.warnings(), [""; 0], "{what}");
            assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
            if !came.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}
