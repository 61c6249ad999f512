//! The display: receives events, decides when to draw, and ends cleanly. The progress mode determines its form.

use super::frame::frame;
use super::plain::Plain;
use super::screen::Screen;
use super::steps::Steps;
use super::terminal::Terminal;
use super::text::{Paint, message};
use super::timeline::{Remark, Timeline};
use super::trace::Trace;
use super::{closing, raw};
use crate::event::{Event, Time};
use crate::settings::ProgressMode;

/// The number of log lines of a failing step that the plain form repeats at the end.
const REPEATED: usize = 50;

/// A running display.
pub(super) struct Display {
    terminal: Terminal,
    paint: Paint,
    view: View,
    trace: Trace,
    remarks: Vec<Remark>,
    steps: Steps,
    began: Time,
}

/// The results of a run that are available after the display ended.
#[derive(Debug, Default)]
pub struct Shown {
    /// The results of the Dockerfile's steps.
    pub steps: Steps,
    /// The times of all steps.
    pub timeline: Timeline,
}

enum View {
    Live(Screen),
    Plain(Plain),
    RawJson,
    Quiet,
}

impl Display {
    pub fn new(terminal: Terminal, mode: ProgressMode, color: bool) -> Self {
        let paint = Paint(color);
        let view = match mode {
            ProgressMode::Auto if terminal.is_live => View::Live(Screen::default()),
            ProgressMode::Tty => View::Live(Screen::default()),
            ProgressMode::Auto | ProgressMode::Plain => View::Plain(Plain::new(paint)),
            ProgressMode::RawJson => View::RawJson,
            ProgressMode::Quiet => View::Quiet,
        };
        let began = terminal.now();
        Self { terminal, paint, view, trace: Trace::default(), remarks: Vec::new(), steps: Steps::default(), began }
    }

    /// Handles an event. The next [`Display::refresh`] draws steps; notes and warnings appear at once.
    pub fn event(&mut self, event: &Event) {
        self.steps.listen(event);
        let now = self.terminal.now();
        match event {
            Event::Status(status) => self.trace.apply(status, now),
            Event::Note(text) => self.remarks.push(Remark::new(now, text, false)),
            Event::Warning(text) => self.remarks.push(Remark::new(now, text, true)),
            Event::Debug(_) => {}
        }
        match &self.view {
            View::Quiet => {
                // The user asked for debug lines, so that even the quiet mode shows them.
                if let Event::Debug(text) = event {
                    self.terminal.write(&format!("{}\n", message(text)));
                }
                return;
            }
            View::RawJson => return self.terminal.write(&raw::line(event)),
            View::Live(_) | View::Plain(_) => {}
        }
        match event {
            Event::Status(_) => {}
            Event::Note(text) => self.say(&format!("note: {}\n", message(text))),
            Event::Debug(text) => self.say(&format!("{}\n", message(text))),
            Event::Warning(text) => {
                self.say(&format!("{}: {}\n", self.paint.bold("33", "warning"), message(text)));
            }
        }
    }

    /// Draws the changes. The caller calls it at most ten times a second.
    pub fn refresh(&mut self) {
        let now = self.terminal.now();
        match &mut self.view {
            View::Live(screen) => {
                self.trace.trim();
                if self.trace.counts().0 > 0 {
                    let size = self.terminal.size();
                    let lines = frame(&self.trace, size, self.began, now, self.paint, false);
                    self.terminal.write(&screen.draw(&lines, size));
                }
            }
            View::Plain(plain) => {
                let lines = plain.print(&mut self.trace, now, false);
                self.terminal.write(&lines);
            }
            View::RawJson | View::Quiet => self.trace.trim(),
        }
    }

    /// Draws the final state, and returns the results.
    pub fn end(mut self) -> Shown {
        let now = self.terminal.now();
        let mut out = String::new();
        match &mut self.view {
            View::Live(screen) => {
                if self.trace.counts().0 > 0 {
                    let size = self.terminal.size();
                    out.push_str(&screen.erase(size));
                    for line in frame(&self.trace, size, self.began, now, self.paint, true) {
                        out.push_str(&line);
                        out.push('\n');
                    }
                }
                self.trace.flush_open_lines(0.0, now);
                out.push_str(&closing::failures(&self.trace, None));
                out.push_str(&closing::warnings(self.trace.warnings(), self.paint));
            }
            View::Plain(plain) => {
                out.push_str(&plain.print(&mut self.trace, now, true));
                out.push_str(&closing::failures(&self.trace, Some(REPEATED)));
                out.push_str(&closing::warnings(self.trace.warnings(), self.paint));
            }
            View::RawJson | View::Quiet => {}
        }
        self.terminal.write(&out);
        Shown { steps: self.steps, timeline: Timeline::new(self.trace, self.remarks, self.began, now) }
    }

    /// Writes a note or a warning, above the live display or between the lines.
    fn say(&mut self, text: &str) {
        match &mut self.view {
            View::Live(screen) => {
                let erase = screen.erase(self.terminal.size());
                self.terminal.write(&(erase + text));
                self.refresh();
            }
            View::Plain(plain) => {
                // Earlier events must appear before the text.
                let lines = plain.print(&mut self.trace, self.terminal.now(), false);
                self.terminal.write(&(lines + text));
            }
            View::RawJson | View::Quiet => {}
        }
    }
}

#[cfg(test)]
mod tests;
