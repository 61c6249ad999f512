//! Tests each fault of a registry, at each point of a build and of a push.

use crate::scripted::registry::RegistryFault::{self, Cut, Damaged, Status};
use crate::stages::Next;

/// The expected result of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    /// The build exits with this code.
    Fails(i32),
}

/// Tests one cell of the table: this many requests of this method fail if their path contains this text.
fn cell(next: Next, (method, path): (&'static str, &str), times: usize, fault: RegistryFault, outcome: Outcome) {
    let what = format!("{next:?}, {method} {path} {times} times {fault:?}");
    let world = next.world();
    let before = world.registry.tagged("app", "1");
    world.registry.fails(method, path, 0, times, fault);
    world.daemon.ran.lock().unwrap().clear();
    let run = world.try_build(&[]);
    match outcome {
        Outcome::Right => {
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
            world.right(run);
        }
        Outcome::Fails(code) => {
            assert_eq!(run.code, code, "{what}: {}", run.stderr);
            assert_eq!(world.registry.tagged("app", "1"), before, "{what}: an image of a build that failed");
        }
    }
    world.registry.mend();
    world.build(&[]);
}

const EVER: usize = usize::MAX;
const PUSHING: [Next; 4] = [Next::Cold, Next::Append, Next::Skeleton, Next::Partial];

#[test]
fn a_registry_that_stumbles_is_asked_again() {
    for next in PUSHING {
        cell(next, ("POST", "/v2/app/blobs/uploads"), 1, Status(503), Outcome::Right);
        cell(next, ("PUT", "/v2/app/manifests"), 1, Status(503), Outcome::Right);
        cell(next, ("PUT", "/v2/app/manifests"), 1, Cut, Outcome::Right);
    }
}

#[test]
fn a_registry_that_refuses_fails_the_push() {
    for next in PUSHING {
        cell(next, ("POST", "/v2/app/blobs/uploads"), EVER, Status(403), Outcome::Fails(3));
        cell(next, ("PUT", "/v2/app/manifests"), EVER, Status(403), Outcome::Fails(3));
    }
}

#[test]
fn an_upload_that_is_cut_off_goes_on() {
    for next in PUSHING {
        cell(next, ("PATCH", "/v2/app/blobs/uploads"), 1, Cut, Outcome::Right);
        cell(next, ("PUT", "/v2/app/blobs/uploads"), 1, Cut, Outcome::Right);
    }
}

#[test]
fn a_base_image_that_is_not_there_fails_a_build_that_needs_it() {
    cell(Next::Cold, ("GET", "/v2/base/manifests"), EVER, Status(404), Outcome::Fails(1));
    cell(Next::Cold, ("GET", "/v2/base/blobs"), EVER, Status(404), Outcome::Fails(1));
}

#[test]
fn a_damaged_base_layer_is_never_built_on() {
    cell(Next::Cold, ("GET", "/v2/base/blobs"), EVER, Damaged, Outcome::Fails(1));
}

#[test]
fn a_base_layer_that_is_damaged_once_is_pulled_again() {
    let world = Next::Cold.world();
    let layer = world.registry.layers("base", "latest").remove(0);
    for fault in [Damaged, Cut, Status(404), Status(500)] {
        cell(Next::Cold, ("GET", &format!("blobs/{layer}")), 1, fault, Outcome::Right);
    }
}
