//! Tests each fault of the daemon, at each point of a build. The build fails with the right exit code and text, there is no new
//! image, and the next build is right. If the fault passes, or the build needs no daemon, the image is right.

use bollard_buildkit_proto::google::{protobuf, rpc};
use prost::Message as _;
use tonic::{Code, Status};

use crate::scripted::faults::{Fault, Point};
use crate::stages::Next;

/// The expected result of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    /// The build exits with this code, and its error contains this text.
    Fails(i32, &'static str),
}

const WORDS: &str = "the model says no";

fn refused() -> Fault {
    Fault::Refused(Code::Unknown, WORDS)
}

/// Tests one cell of the table.
fn cell(next: Next, point: Point, named: &str, fault: Fault, outcome: Outcome) {
    let what = format!("{next:?}, {point:?} {named}");
    let world = next.world();
    let before = world.registry.tagged("app", "1");
    world.daemon.solver.faults.add(point, named, 0, 1, fault);
    world.daemon.ran.lock().unwrap().clear();
    let run = world.try_build(&[]);
    match outcome {
        Outcome::Right => drop(world.right(run.exits(0))),
        Outcome::Fails(code, words) => {
            let run = run.exits(code);
            assert!(run.stderr.contains(words), "{what}: {}", run.stderr);
            assert_eq!(world.registry.tagged("app", "1"), before, "{what}: an image of a build that failed");
        }
    }
    world.daemon.solver.faults.mend();
    let after = world.build(&[]);
    assert_eq!(after.warnings(), [""; 0], "{what}");
}

/// The builds that need the daemon.
const ASKED: [Next; 4] = [Next::Cold, Next::Skeleton, Next::Partial, Next::Observed];

#[test]
fn a_daemon_that_opens_no_session_fails_the_build() {
    for next in ASKED {
        cell(next, Point::Session, "", refused(), Outcome::Fails(5, "session"));
    }
}

#[test]
fn a_frontend_that_refuses_fails_the_build_in_its_words() {
    for next in ASKED {
        cell(next, Point::Compile, "", refused(), Outcome::Fails(1, WORDS));
    }
}

/// The daemon may end the build before it answers the gateway's last call. The user sees the lines of the Dockerfile all the same.
#[test]
fn an_error_has_its_lines_even_if_the_build_ends_first() {
    let source =
        br#"{"info":{"filename":"Dockerfile","data":"RlJPTSBhClJVTiBiCg=="},"ranges":[{"start":{"line":2},"end":{"line":2}}]}"#;
    let type_url = "github.com/moby/buildkit/errdefs.Source+json".to_owned();
    let details = vec![protobuf::Any { type_url, value: source.to_vec() }];
    let details = rpc::Status { code: 2, message: WORDS.to_owned(), details };
    let status = Status::with_details(Code::Unknown, WORDS, details.encode_to_vec().into());
    let world = Next::Cold.world();
    let faults = &world.daemon.solver.faults;
    faults.add(Point::Compile, "", 0, 1, Fault::Detailed(Box::new(status)));
    faults.add(Point::Return, "", 0, 1, Fault::Unanswered);
    let run = world.try_build(&[]).exits(1);
    assert!(run.stderr.contains("   2 | >>> RUN b") && run.stderr.contains(WORDS), "{}", run.stderr);
}

#[test]
fn a_step_that_fails_fails_the_build_in_its_words() {
    for (next, step) in
        [(Next::Cold, "RUN sum"), (Next::Skeleton, "COPY"), (Next::Partial, "RUN sum /built"), (Next::Observed, "RUN compile")]
    {
        cell(next, Point::Step, step, refused(), Outcome::Fails(1, WORDS));
    }
}

#[test]
fn an_export_that_fails_fails_the_build_in_its_words() {
    for next in [Next::Cold, Next::Skeleton, Next::Partial] {
        cell(next, Point::Export, "image", refused(), Outcome::Fails(1, WORDS));
    }
}

#[test]
fn a_fault_that_passes_is_tried_again() {
    let passing = || Fault::Refused(Code::Unavailable, "read: connection reset by peer");
    for next in [Next::Cold, Next::Partial] {
        cell(next, Point::Compile, "", passing(), Outcome::Right);
        cell(next, Point::Step, "RUN sum", passing(), Outcome::Right);
    }
}

#[test]
fn a_connection_that_breaks_off_fails_the_build_and_says_that_the_daemon_is_there() {
    for (next, point, named) in [
        (Next::Cold, Point::Compile, ""),
        (Next::Cold, Point::Step, "RUN sum"),
        (Next::Cold, Point::Export, "image"),
        (Next::Skeleton, Point::Step, "COPY"),
        (Next::Partial, Point::Step, "RUN sum /built"),
        (Next::Observed, Point::Step, "RUN compile"),
    ] {
        cell(next, point, named, Fault::Cut, Outcome::Fails(1, "answers again"));
    }
}

#[test]
fn a_daemon_that_ends_fails_the_build_and_says_so() {
    cell(Next::Cold, Point::Step, "RUN sum", Fault::Gone, Outcome::Fails(1, "Docker daemon"));
}

#[test]
fn no_fault_of_the_daemon_matters_where_it_has_no_part() {
    for next in [Next::Unchanged, Next::Append] {
        for point in [Point::Session, Point::Compile, Point::Solve, Point::Step, Point::Export] {
            cell(next, point, "", refused(), Outcome::Right);
        }
    }
}

/// If hakobi cannot export the files that decide whether steps are cached, the steps run.
#[test]
fn what_cannot_be_looked_at_is_taken_for_changed() {
    cell(Next::Observed, Point::Export, "tar", refused(), Outcome::Right);
    cell(Next::Skeleton, Point::Export, "tar", refused(), Outcome::Right);
}
