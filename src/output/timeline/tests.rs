//! Rows and pages of recorded runs.

use super::super::run::{ColdReport, Outcome, StepReport, StepStatus, Tier};
use super::super::testing::{Script, at, eventful, part};
use super::rows::{Group, Kind, Row, State, groups, idle};
use super::*;
use crate::event::{Event, Status, Vertex};

fn run(script: &Script, ended: f64) -> Run {
    let (mut trace, mut remarks) = (Trace::default(), Vec::new());
    for (seconds, event) in script.events() {
        match event {
            Event::Status(status) => trace.apply(status, at(*seconds)),
            Event::Note(text) => remarks.push(Remark::new(at(*seconds), text, false)),
            Event::Warning(text) => remarks.push(Remark::new(at(*seconds), text, true)),
            Event::Debug(_) => {}
        }
    }
    Timeline::new(trace, remarks, at(0.0), at(ended)).run.unwrap()
}

fn step(stage: &str, instruction: &str, status: StepStatus, reason: &str) -> StepReport {
    StepReport { stage: stage.into(), instruction: instruction.into(), status, reason: reason.into(), ..StepReport::default() }
}

fn find<'a>(groups: &'a [Group], group: &str, name: &str) -> &'a Row {
    let group = groups.iter().find(|known| known.name == group).unwrap_or_else(|| panic!("no group {group} in {groups:?}"));
    group.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name} in {group:?}"))
}

/// Formats the kinds and times of a row's bars.
fn bars(row: &Row) -> String {
    row.bars
        .iter()
        .map(|(kind, span)| format!("{kind:?} {:.1}-{:.1} ", span.start, span.end))
        .collect::<String>()
        .trim_end()
        .into()
}

#[test]
fn a_step_waits_for_what_it_is_built_on() {
    let mut script = Script::new();
    script.run("a", "[build 2/3] COPY . .", 1.0, 2.0);
    let vertex = |started, completed| Vertex {
        digest: "b".into(),
        inputs: vec!["a".into()],
        name: "[build 3/3] RUN make".into(),
        started: Some(at(started)),
        completed,
        cached: false,
        error: String::new(),
    };
    script.event(9.0, Event::Status(Status { vertexes: vec![vertex(3.5, Some(at(9.0)))], ..Status::default() }));
    let run = run(&script, 10.0);
    let mut report = RunReport { outcome: Outcome::Success, ..RunReport::default() };
    report.steps = vec![step("build", "RUN make", StepStatus::Miss, "src/a.c changed")];
    let groups = groups(&run, &report);
    let make = find(&groups, "Stage build", "RUN make");
    assert_eq!(bars(make), "Waiting 2.0-3.5 Work 3.5-9.0");
    assert_eq!((make.state, &*make.reason, make.seconds()), (State::Ran, "src/a.c changed", 5.5));
    let idle: Vec<String> = idle(&groups, 10.0).iter().map(|span| format!("{:.1}-{:.1}", span.start, span.end)).collect();
    assert_eq!(idle, ["0.0-1.0", "2.0-3.5", "9.0-10.0"]);
}

#[test]
fn rounds_of_a_build_are_one_row() {
    let mut script = Script::new();
    script.run("a", "[2/2] RUN make", 0.0, 2.0);
    script.cached("b", "[2/2] RUN make", 3.0);
    script.begin("g", "[hakobi] from the cache: [dep 2/2] RUN get", 0.0);
    script.progress(0.5, part("g", &format!("sha256:{}", "ab12".repeat(16)), 5_000_000, 5_000_000, Some(0.5)));
    script.progress(0.6, part("g", &format!("extracting sha256:{}", "ab12".repeat(16)), 5_000_000, 0, Some(0.6)));
    script.run("g", "[hakobi] from the cache: [dep 2/2] RUN get", 0.0, 0.7);
    script.cached("h", "[dep 2/2] RUN get", 3.0);
    let run = run(&script.in_order(), 3.0);
    let mut report = RunReport { outcome: Outcome::Success, ..RunReport::default() };
    report.steps = vec![step("stage-0", "RUN make", StepStatus::Miss, ""), step("dep", "RUN get", StepStatus::Hit, "")];
    let groups = groups(&run, &report);
    let make = find(&groups, "Stage stage-0", "RUN make");
    assert_eq!((make.state, &*bars(make)), (State::Ran, "Work 0.0-2.0 Work 3.0-3.0"));
    let get = find(&groups, "Stage dep", "RUN get");
    assert_eq!((get.state, get.bytes()), (State::Cached, 5_000_000), "what is unpacked came down once");
    assert_eq!(get.bars[0].0, Kind::Transfer);
    assert_eq!(get.parts[0].name, "ab12ab12ab12");
}

#[test]
fn the_daemons_clock_may_be_another() {
    let mut script = Script::new();
    // The daemon's clock is an hour ahead. The messages arrive half a second, and then a tenth of a second, after the events.
    script.run("a", "[2/3] RUN one", 3600.0, 3601.0);
    script.run("b", "[3/3] RUN two", 3601.0, 3603.0);
    let mut trace = Trace::default();
    let arrives = [0.5, 1.5, 1.2, 3.1];
    for ((_, event), arrives) in script.events().iter().zip(arrives) {
        if let Event::Status(status) = event {
            trace.apply(status, at(arrives));
        }
    }
    let run = Timeline::new(trace, Vec::new(), at(0.0), at(4.0)).run.unwrap();
    let groups = groups(&run, &RunReport::default());
    assert_eq!(bars(find(&groups, "Stage stage-0", "RUN two")), "Work 1.1-3.1");
}

#[test]
fn the_page_shows_what_happened_and_loads_nothing() {
    let mut script = eventful();
    script.event(9.3, Event::Warning("<script>alert(1)</script> \u{1b}[31mred".into()));
    script.fail("x", "[1/1] RUN echo '<img src=x>'", 1.0, 9.0, "exit code: 1");
    let mut report = RunReport { outcome: Outcome::Failure, ..RunReport::default() };
    let page = page::page(&run(&script.in_order(), 10.0), &report, Some("error: <b>no</b>"));
    for text in [
        "A run that failed",
        "error: &lt;b&gt;no&lt;/b&gt;",
        "&lt;script&gt;alert(1)&lt;/script&gt; red",
        "RUN echo '&lt;img src=x&gt;'",
        "cc: error: 運び.c not found",
        "stopped, because something else failed",
        "no cached image at s3://bucket/x yet",
    ] {
        assert!(page.contains(text), "no {text} in {page}");
    }
    for load in ["<script", "<img", "<link", "url(", "@import", "src=\""] {
        assert!(!page.contains(load), "{load} in {page}");
    }
    report.outcome = Outcome::Success;
    report.tier = Tier::Partial;
    report.steps = vec![step("stage-1", "COPY <<EOF /etc/motd …", StepStatus::Miss, "a.c changed")];
    report.last_cold = Some(ColdReport { seconds: 80.0, ended: "2026-11-25T10:00:00Z".into() });
    report.seconds.total = 10.0;
    let page = page::page(&run(&eventful(), 10.0), &report, None);
    for text in ["70.0s less than its last cold build (80.0s)", "a.c changed", "40.1 MB", "alpine:3.20"] {
        assert!(page.contains(text), "no {text} in {page}");
    }
}

#[test]
fn nothing_happened() {
    let page = page::page(&run(&Script::new(), 0.0), &RunReport::default(), None);
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"), "{page}");
    assert_eq!(Timeline::default().page(&RunReport::default(), None), "");
}
