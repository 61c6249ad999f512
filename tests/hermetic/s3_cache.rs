//! The cache in S3, with faults at each of its requests: a build is right, and the next ones have a right cache.

use std::process::ExitStatus;
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
    world.killed_build(|| {
        let is_due = came.load(Ordering::SeqCst);
        if is_due {
            // The server executes the request in this time, or not: both happen.
            std::thread::sleep(Duration::from_millis(number % 3 * 5));
        }
        is_due
    })
}

/// Kills builds at every `step`th request.
fn killed_at_requests(before: Before, step: usize) {
    for number in (0..).step_by(step) {
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
    killed_at_requests(Before::Nothing, 4);
}

#[test]
fn a_later_build_that_is_killed_at_any_request_leaves_a_right_cache() {
    killed_at_requests(Before::Change, 5);
}

#[test]
#[ignore = "long"]
fn long_builds_that_are_killed_at_each_request_leave_a_right_cache() {
    for before in [Before::Nothing, Before::Change] {
        killed_at_requests(before, 1);
    }
}

/// Gives requests a fault: the image is right, with a warning of what could not be read and one of what could not be saved at most, and
/// the cache is whole after the next build.
fn faults_at_requests(faults: &[Fault], step: usize) {
    for (turn, fault) in faults.iter().enumerate() {
        for number in (turn as u64..).step_by(step) {
            let world = world(Before::Change);
            let came = fault_at(&world, number, fault.clone());
            let built = world.build(&[]);
            proxy(&world).mend();
            let what = format!("{fault:?} at request {number}: {}", built.stderr);
            assert!(built.warnings().len() <= 2, "{what}");
            // Only these two say something of the object itself.
            let blames = *fault == Fault::Flip || *fault == Fault::s3(404, "NoSuchKey");
            assert!(blames || !built.stderr.contains("damaged objects"), "{what}");
            let next = world.wiped().build(&[]);
            assert_eq!(next.warnings(), [""; 0], "{what}");
            assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
            if !came.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

#[test]
fn a_fault_at_any_request_costs_at_most_the_cache() {
    faults_at_requests(&[Fault::s3(403, "AccessDenied"), Fault::Truncate, Fault::Flip], 9);
}

#[test]
#[ignore = "long"]
fn long_each_fault_at_any_request_costs_at_most_the_cache() {
    let refusals = [(403, "AccessDenied"), (404, "NoSuchKey"), (400, "ExpiredToken"), (503, "SlowDown")];
    let refusals = refusals.map(|(status, code)| Fault::s3(status, code));
    faults_at_requests(&[&refusals[..], &[Fault::OtherEtag, Fault::Truncate, Fault::Flip, Fault::Lost]].concat(), 2);
}
