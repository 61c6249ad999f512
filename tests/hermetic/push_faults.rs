//! A push to a registry with a fault at each of the job's requests: the image in the registry is right, or the push fails and its tag
//! did not move.

use std::time::Duration;

use crate::fault_proxy::Fault;
use crate::machine::Run;
use crate::stages::Next;
use crate::world::{Place, World};

/// A run that takes longer hangs. hakobi gives up a registry after 180 s.
const HANGS: Duration = Duration::from_secs(600);

/// The next build, and where the cache is.
type Job = (Next, Place);

const COLD: Job = (Next::Cold, Place::Directory);
const UNCHANGED: Job = (Next::Unchanged, Place::Directory);
const APPEND: Job = (Next::Append, Place::Directory);
const SKELETON: Job = (Next::Skeleton, Place::Directory);
const PARTIAL: Job = (Next::Partial, Place::Directory);
/// The cache is in the same registry too.
const STORED: [Job; 4] = [
    (Next::Cold, Place::Repository),
    (Next::Unchanged, Place::Repository),
    (Next::Append, Place::Repository),
    (Next::Append, Place::Beside),
];

fn all_faults() -> Vec<Fault> {
    let answers = [
        (500, "UNKNOWN"),
        (503, "UNAVAILABLE"),
        (429, "TOOMANYREQUESTS"),
        (401, "UNAUTHORIZED"),
        (403, "DENIED"),
        (404, "NOT_FOUND"),
    ];
    let answers = answers.map(|(status, code)| Fault::registry(status, code));
    [&[Fault::Reset, Fault::Lost, Fault::Truncate, Fault::Flip][..], &answers].concat()
}

/// Gives the request of a job with this number a fault. Returns whether the job made so many requests.
fn fault_at(job: Job, number: u64, fault: &Fault) -> bool {
    let world = job.0.world_with(|world| world.with_cache(job.1).behind_proxy());
    let proxy = world.front.as_ref().unwrap();
    let before = world.registry.tagged("app", "1");
    proxy.fault_at(number, fault.clone());
    let run = world.build_within(HANGS);
    proxy.mend();
    let asked = proxy.faulted();
    let what = format!("{job:?}, {fault:?} at request {number}, {asked:?}: exit code {}: {}", run.code, run.stderr);
    // The base image is a part of the build. If hakobi could not read it, the steps on it have no keys and are not saved.
    let is_of_base = asked.as_ref().is_some_and(|asked| asked.target.starts_with("/v2/base/"));
    let mut is_saved = false;
    if run.code == 0 {
        let built = world.right(run);
        assert!(built.warnings().len() <= 2, "{what}");
        is_saved = built.warnings().is_empty() && !is_of_base;
    } else {
        assert!(run.code == 3 || is_of_base && run.code == 1, "{what}");
        assert!(error_of(&run).contains(&proxy.host()), "{what}");
        assert_eq!(world.registry.tagged("app", "1"), before, "{what}");
    }
    world.registry.is_whole(&what);
    next_is_right(&world, is_saved, &what);
    asked.is_some()
}

/// Checks the next run, which has no fault, and the one after it.
fn next_is_right(world: &World, is_saved: bool, what: &str) {
    let next = world.wiped().build(&[]);
    assert_eq!(next.warnings(), [""; 0], "{what}\nthe next run: {}", next.stderr);
    if next.tier() != "unchanged" {
        assert!(!is_saved, "{what}\nthe next run: {}", next.stderr);
        assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
    }
    world.registry.is_whole(what);
}

/// Returns the error of a run that failed.
fn error_of(run: &Run) -> &str {
    run.stderr.split_once("error: ").map_or("", |(_, error)| error)
}

/// Gives every `step`th request of a job a fault: each request another one.
fn some_faults(job: Job, step: usize) {
    let faults = all_faults();
    let mut cells = (0..).step_by(step).zip(faults.iter().cycle());
    while cells.next().is_some_and(|(number, fault)| fault_at(job, number, fault)) {}
}

/// Gives every `step`th request of a job each fault.
fn each_fault(job: Job, step: usize) {
    for (turn, fault) in all_faults().iter().enumerate() {
        let mut numbers = ((turn % step) as u64..).step_by(step);
        while numbers.next().is_some_and(|number| fault_at(job, number, fault)) {}
    }
}

#[test]
fn a_fault_at_any_request_is_a_right_image_or_a_failed_push() {
    some_faults(COLD, 4);
    some_faults(UNCHANGED, 3);
}

#[test]
fn a_fault_at_any_request_of_a_changed_build_is_a_right_image_or_a_failed_push() {
    some_faults(APPEND, 4);
    some_faults((Next::Append, Place::Repository), 5);
}

#[test]
#[ignore = "long"]
fn long_each_fault_at_any_request_of_a_push_to_a_new_repository() {
    each_fault(COLD, 1);
}

#[test]
#[ignore = "long"]
fn long_each_fault_at_any_request_of_a_push_to_an_old_repository() {
    for job in [UNCHANGED, APPEND, SKELETON, PARTIAL] {
        each_fault(job, 1);
    }
}

#[test]
#[ignore = "long"]
fn long_each_fault_at_any_request_of_a_push_with_the_cache_in_the_registry() {
    for job in STORED {
        each_fault(job, 2);
    }
}
