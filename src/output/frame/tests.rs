//! Frames of a recorded run at several widths and heights.

use super::super::testing::{Script, at, eventful};
use super::*;
use crate::event::Event;

fn trace(script: &Script, until: f64) -> Trace {
    let mut trace = Trace::default();
    for (seconds, event) in script.events().iter().filter(|(seconds, _)| *seconds <= until) {
        if let Event::Status(status) = event {
            trace.apply(status, at(*seconds));
        }
    }
    trace
}

fn shown(width: usize, height: usize, until: f64, whole: bool) -> String {
    let size = Size { width, height };
    let lines = frame(&trace(&eventful(), until), size, at(0.0), at(until), Paint(false), whole);
    assert!(lines.iter().all(|line| super::super::text::width(line) < width.max(1)), "too wide for {width}: {lines:#?}");
    assert!(whole || lines.len() < height.max(3), "too high for {height}: {lines:#?}");
    assert!(!lines.iter().any(|line| line.contains('\u{1b}')));
    lines.join("\n")
}

#[test]
fn while_fetching() {
    insta::assert_snapshot!("fetching-40", shown(40, 24, 1.5, false));
    insta::assert_snapshot!("fetching-80", shown(80, 24, 1.5, false));
    insta::assert_snapshot!("fetching-200", shown(200, 24, 1.5, false));
}

#[test]
fn side_by_side() {
    insta::assert_snapshot!("running-40", shown(40, 24, 3.5, false));
    insta::assert_snapshot!("running-80", shown(80, 24, 3.5, false));
    insta::assert_snapshot!("running-200", shown(200, 24, 3.5, false));
}

#[test]
fn done_steps_go_first_where_rows_are_few() {
    insta::assert_snapshot!("rows-8", shown(80, 8, 3.5, false));
    insta::assert_snapshot!("rows-5", shown(80, 5, 3.5, false));
    insta::assert_snapshot!("rows-3", shown(80, 3, 3.5, false));
}

#[test]
fn the_whole_at_the_end() {
    insta::assert_snapshot!("whole-80", shown(80, 5, 9.2, true));
}

#[test]
fn no_size_is_too_small() {
    for width in 0..45 {
        for height in 0..12 {
            shown(width, height, 3.5, false);
            shown(width, height, 9.2, true);
        }
    }
}

#[test]
fn finished_is_said_once_all_is_done() {
    let mut script = Script::new();
    script.run("a", "[2/2] RUN a", 0.0, 1.0);
    let lines = frame(&trace(&script, 2.0), Size { width: 80, height: 24 }, at(0.0), at(2.0), Paint(false), true);
    assert_eq!(lines[0], "[+] Building 2.0s (1/1) FINISHED");
}

#[test]
fn colours_do_not_count() {
    let lines = frame(&trace(&eventful(), 9.2), Size { width: 60, height: 24 }, at(0.0), at(9.2), Paint(true), true);
    assert!(lines.iter().any(|line| line.starts_with("\u{1b}[31m => ERROR [build 2/3] RUN make")));
    assert!(lines.iter().all(|line| super::super::text::width(line) < 60));
}

#[test]
fn a_daemon_with_another_clock() {
    // The daemon's clock is an hour behind ours.
    let mut script = Script::new();
    script.begin("a", "[2/2] RUN a", 0.0);
    let mut trace = Trace::default();
    for (_, event) in script.events() {
        if let Event::Status(status) = event {
            trace.apply(status, at(3600.0));
        }
    }
    let (_, entry) = trace.started().next().unwrap();
    assert_eq!(trace.seconds(entry, at(3602.5)), 2.5);
}
