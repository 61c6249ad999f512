//! Shows recorded runs on whole displays, whose output is a buffer.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::super::frame::Size;
use super::super::testing::{at, eventful};
use super::super::{Handle, spawn_on};
use super::*;
use crate::event::Events;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Shows the eventful run, and returns the output.
fn shown(mode: ProgressMode, color: bool) -> String {
    let buffer = Buffer::default();
    let clock = Arc::new(Mutex::new(at(0.0)));
    let hand = clock.clone();
    let size = Size { width: 80, height: 24 };
    let terminal = Terminal::new(buffer.clone(), move || size, move || *hand.lock().unwrap(), false);
    let mut display = Display::new(terminal, mode, color);
    for (seconds, event) in eventful().events() {
        *clock.lock().unwrap() = at(*seconds);
        display.event(event);
        display.refresh();
    }
    let shown = display.end();
    assert_eq!(shown.steps.results().len(), 4);
    buffer.text()
}

#[test]
fn plain_from_beginning_to_end() {
    let out = shown(ProgressMode::Auto, false);
    assert!(!out.contains('\u{1b}'));
    insta::assert_snapshot!(out);
}

#[test]
fn live_leaves_the_whole_list_and_the_failing_log() {
    let out = shown(ProgressMode::Tty, false);
    let last = out.rsplit("\u{1b}[J\u{1b}[1A").next().unwrap();
    insta::assert_snapshot!(last);
    assert!(out.ends_with(last) && !last.contains('\u{1b}'));
}

#[test]
fn live_without_colour_only_moves_the_cursor() {
    let out = shown(ProgressMode::Tty, false);
    for sequence in out.split('\u{1b}').skip(1) {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        assert!(["A", "B", "K", "J", "l", "h"].contains(&&sequence[end..=end]), "{sequence:?}");
    }
    assert_eq!(out.matches("\u{1b}[?25l").count(), out.matches("\u{1b}[?25h").count());
    assert!(shown(ProgressMode::Tty, true).contains("\u{1b}[36m"));
}

#[test]
fn notes_stand_above_the_live_display() {
    let out = shown(ProgressMode::Tty, false);
    let (before, after) = out.split_once("note: no cached image at s3://bucket/x yet\n").unwrap();
    assert!(before.ends_with("\u{1b}[J\u{1b}[1A"));
    assert!(after.starts_with("\u{1b}[?25l\r[+] Building"));
}

#[test]
fn json_lines() {
    let out = shown(ProgressMode::RawJson, true);
    assert!(out.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    insta::assert_snapshot!(out);
}

#[test]
fn quiet_is_quiet() {
    assert_eq!(shown(ProgressMode::Quiet, true), "");
}

fn spawned(buffer: &Buffer) -> (Events, Handle) {
    let (events, receiver) = Events::channel();
    let terminal = Terminal::new(buffer.clone(), || Size { width: 80, height: 24 }, Time::now, true);
    (events, spawn_on(terminal, receiver, ProgressMode::Auto, false))
}

#[tokio::test]
async fn finishing_shows_what_was_sent_though_senders_live() {
    let buffer = Buffer::default();
    let (events, handle) = spawned(&buffer);
    events.step("pushing layers").done();
    events.warning("the cache is slow");
    let shown = handle.finish().await;
    assert!(shown.steps.results().is_empty());
    let out = buffer.text();
    assert!(out.contains("warning: the cache is slow\n"), "{out}");
    assert!(out.contains(" => pushing layers"), "{out}");
    events.note("too late");
    assert!(!buffer.text().contains("too late"));
}

#[test]
fn a_dropped_display_ends() {
    let buffer = Buffer::default();
    let (events, handle) = spawned(&buffer);
    let step = events.step("pushing layers");
    drop(handle);
    step.done();
    assert!(buffer.text().contains("[+] Building"));
}

/// A hostile text, as in a file name, a build argument, a registry's error or a tag: CI commands at the start of a line, and
/// escape sequences for a terminal.
const HOSTILE: &str =
    "x\n::error::y\r\n  ::add-mask::z\n##[error]w\n##vso[task.setvariable]v\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1A\u{202e}\u{8}u";

/// Fails if a line begins with a CI command, or if the text has an escape sequence that is not the display's own.
#[track_caller]
fn is_harmless(what: &str, text: &str) {
    for line in text.split(['\n', '\r']) {
        for command in ["::", "##[", "##vso["] {
            assert!(!line.trim_start().starts_with(command), "{what}: {line:?} in {text}");
        }
    }
    for forbidden in ["\u{1b}[2J", "\u{1b}]", "\u{9b}", "\u{202e}", "\u{8}", "\u{7}"] {
        assert!(!text.contains(forbidden), "{what}: {forbidden:?} in {text:?}");
    }
}

/// A run in which all texts are hostile.
fn hostile() -> super::super::testing::Script {
    let mut script = super::super::testing::Script::new();
    script.begin("a", &format!("[2/3] COPY {HOSTILE} /"), 0.0);
    script.progress(0.1, super::super::testing::part("a", &format!("sending {HOSTILE}"), 1, 2, None));
    script.log(0.2, "a", HOSTILE);
    script.warning(0.3, "a", HOSTILE, 1);
    script.event(0.4, Event::Note(format!("first changed step: {HOSTILE}")));
    script.event(0.5, Event::Warning(HOSTILE.to_owned()));
    script.fail("b", &format!("pushing {HOSTILE}"), 0.0, 0.6, HOSTILE);
    script.fail("a", &format!("[2/3] COPY {HOSTILE} /"), 0.0, 0.7, HOSTILE);
    script.in_order()
}

#[test]
fn no_word_of_others_begins_a_line_or_commands_a_terminal() {
    use super::super::run::{AdviceReport, Outcome, StepReport, StepStatus, Tier};
    use super::super::{RunReport, answer, error, markdown, summary, warning};

    let mut timeline = Timeline::default();
    let mut steps = Vec::new();
    for mode in [ProgressMode::Auto, ProgressMode::Plain, ProgressMode::Tty, ProgressMode::RawJson, ProgressMode::Quiet] {
        let buffer = Buffer::default();
        let size = Size { width: 80, height: 24 };
        let terminal = Terminal::new(buffer.clone(), move || size, || at(1.0), false);
        let mut display = Display::new(terminal, mode, false);
        for (_, event) in hostile().events() {
            display.event(event);
            display.refresh();
        }
        let shown = display.end();
        steps = shown.steps.reports(None, &std::collections::HashMap::new());
        timeline = shown.timeline;
        is_harmless(&format!("{mode:?}"), &buffer.text());
        assert_eq!(buffer.text().is_empty(), mode == ProgressMode::Quiet);
    }
    let failure = crate::error::Error::push(HOSTILE).because(&std::io::Error::other(HOSTILE)).hint(HOSTILE);
    is_harmless("error", &error(&failure, false));
    is_harmless("warning", &warning(HOSTILE, false));
    is_harmless("answer", &answer(&format!("kept  {HOSTILE}\n")));
    let json = answer(&serde_json::json!({ "a": HOSTILE }).to_string());
    is_harmless("JSON", &json);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["a"], HOSTILE);
    let mut report = RunReport { outcome: Outcome::Success, tier: Tier::Partial, ..RunReport::default() };
    steps.push(StepReport { status: StepStatus::Miss, reason: HOSTILE.to_owned(), ..StepReport::default() });
    report.steps = steps;
    report.steps[0].reason = HOSTILE.to_owned();
    report.advice = vec![AdviceReport { file: HOSTILE.to_owned(), line: 1, seconds: None, text: HOSTILE.to_owned() }];
    report.cache.warnings = vec![HOSTILE.to_owned()];
    is_harmless("summary", &summary(&report).unwrap());
    is_harmless("Markdown", &markdown(&report));
    is_harmless("timeline", &timeline.page(&report, Some(HOSTILE)));
}
