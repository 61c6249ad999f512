//! Whole displays over recorded runs, into a buffer.

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

/// Shows the eventful run and all that is written.
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
