//! The cache in S3, with faults at each of its requests: a build is right, and the next ones have a right cache.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;

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
    proxy(world).fault_at(number, fault)
}

/// Builds, and sends the build a signal as soon as that request has come. Returns how it ended, and whether it got the signal.
fn stopped_at(world: &World, signal: &str, number: u64) -> (ExitStatus, bool) {
    let came = fault_at(world, number, Fault::StallAfter);
    let (status, sent) = world.stopped_build(signal, |sent| {
        let is_due = sent == 0 && came.load(Ordering::SeqCst);
        if is_due {
            // The server executes the request in this time, or not: both happen.
            std::thread::sleep(Duration::from_millis(number % 3 * 5));
        }
        is_due
    });
    (status, sent > 0)
}

/// Stops builds at every `step`th request.
fn stopped_at_requests(before: Before, signal: &str, step: usize) {
    for number in (0..).step_by(step) {
        let world = world(before);
        let (status, was_stopped) = stopped_at(&world, signal, number);
        proxy(&world).mend();
        let what = format!("{before:?}, {signal} at request {number}");
        if was_stopped && signal == "TERM" {
            assert_eq!(status.code(), Some(143), "{what}");
            assert_eq!(world.s3.as_ref().unwrap().0.open_uploads(), 0, "{what}");
        }
        // A build that was killed before its first write leaves no cache.
        let verified = world.machine.hakobi(&["cache", "verify", "--cache", "s3://cache/app"]);
        assert!(verified.code == 0 || verified.stderr.contains("no cache at"), "{what}: {}{}", verified.stdout, verified.stderr);
        let built = world.wiped().build(&[]);
        assert_eq!(built.warnings(), [""; 0], "{what}");
        assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
        if !was_stopped {
            assert!(status.success() && number > 8, "{what}: {status}");
            return;
        }
    }
}

#[test]
fn a_first_build_that_is_killed_at_any_request_leaves_a_right_cache() {
    stopped_at_requests(Before::Nothing, "KILL", 4);
}

#[test]
fn a_later_build_that_is_killed_at_any_request_leaves_a_right_cache() {
    stopped_at_requests(Before::Change, "KILL", 5);
}

#[test]
#[ignore = "long"]
fn long_builds_that_are_killed_at_each_request_leave_a_right_cache() {
    for before in [Before::Nothing, Before::Change] {
        stopped_at_requests(before, "KILL", 1);
    }
}

#[test]
fn a_build_that_is_interrupted_at_any_request_leaves_a_right_cache() {
    stopped_at_requests(Before::Nothing, "TERM", 10);
    stopped_at_requests(Before::Change, "TERM", 13);
}

#[test]
#[ignore = "long"]
fn long_builds_that_are_interrupted_at_each_request_leave_a_right_cache() {
    for before in [Before::Nothing, Before::Change] {
        stopped_at_requests(before, "TERM", 1);
    }
}

/// After the first signal, hakobi aborts an upload, and S3 does not answer.
#[test]
fn a_second_signal_does_not_wait_for_the_cleanup() {
    let world = world(Before::Nothing);
    let random: Vec<u8> = std::iter::repeat_with(rand::random).take(20 << 20).collect();
    std::fs::write(world.machine.folder().join("src/main"), random).unwrap();
    let (uploading, aborting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (began, aborts) = (Arc::clone(&uploading), Arc::clone(&aborting));
    proxy(&world).set(move |asked: &Asked| {
        let is_part = asked.target.contains("partNumber=");
        let is_abort = asked.method == Method::DELETE && asked.target.contains("uploadId=");
        began.fetch_or(is_part, Ordering::SeqCst);
        aborts.fetch_or(is_abort, Ordering::SeqCst);
        (is_part || is_abort).then_some(Fault::Stall)
    });
    let (status, sent) = world.stopped_build("TERM", |sent| match sent {
        0 => uploading.load(Ordering::SeqCst),
        1 => aborting.load(Ordering::SeqCst),
        _ => false,
    });
    assert_eq!((status.code(), sent), (Some(143), 2));
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
