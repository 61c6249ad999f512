//! Formats steps as lines for the logs of CI systems, like buildx: `#5 [2/3] RUN make`, `#5 0.123 text`, `#5 DONE 1.2s`.
//!
//! Steps run in parallel, but the log has one sequence of lines. It therefore consists of blocks, each of one step and with the
//! step's name first. If a block stops before its step ends, its last line is `#5 ...`.

use std::collections::HashMap;

use super::text::{Paint, bytes, log_seconds};
use super::trace::{Entry, Trace};
use crate::event::{Progress, Time};

/// The time, in seconds, for which a running step stays current while other steps have new lines.
const TURN: f64 = 5.0;
/// hakobi prints progress again after this many seconds, or after this fraction of the total.
const PROGRESS_SECONDS: f64 = 5.0;
const PROGRESS_PART: f64 = 0.05;
/// hakobi prints an unended line after this many seconds, because CI systems stop a job without output.
const OPEN_LINE: f64 = 5.0;

/// The state of the printed log.
#[derive(Debug)]
pub(super) struct Plain {
    paint: Paint,
    printed: HashMap<usize, Printed>,
    // The step of the current block, and when the block began.
    current: Option<(usize, Time)>,
    numbers: usize,
    // Whether a block was printed. Blank lines separate blocks.
    begun: bool,
}

#[derive(Debug, Default)]
struct Printed {
    number: usize,
    ended: bool,
    state: Option<State>,
    parts: HashMap<String, (i64, Time, bool)>,
    lines: usize,
}

// The state that a step's own lines show. If it changes, the step has new lines.
type State = (Time, Option<Time>, bool, bool);

fn state(entry: &Entry) -> Option<State> {
    entry.last_interval().map(|(start, end)| (start, end, entry.cached, entry.error.is_some()))
}

impl Plain {
    pub fn new(paint: Paint) -> Self {
        Self { paint, printed: HashMap::new(), current: None, numbers: 0, begun: false }
    }

    /// Returns the new lines. At the end (`last`), returns all that remain.
    pub fn print(&mut self, trace: &mut Trace, now: Time, last: bool) -> String {
        trace.flush_open_lines(if last { 0.0 } else { OPEN_LINE }, now);
        let mut out = String::new();
        if let Some((current, _)) = self.current {
            self.block(trace, current, now, last, &mut out);
        }
        for index in self.waiting(trace, true, last) {
            self.block(trace, index, now, last, &mut out);
        }
        loop {
            let running = self.waiting(trace, false, last);
            let Some(next) = running.into_iter().max_by_key(|index| self.unsaid(trace, *index)) else { break };
            let free = self.current.is_none_or(|(_, since)| now.seconds_since(since) >= TURN);
            if !free && !last {
                break;
            }
            self.block(trace, next, now, last, &mut out);
        }
        trace.trim();
        out
    }

    /// Returns the steps with new lines: the finished ones by the time of their end, or the running ones.
    fn waiting(&self, trace: &Trace, done: bool, last: bool) -> Vec<usize> {
        let mut waiting: Vec<(Option<Time>, usize)> = trace
            .started()
            .filter(|(index, entry)| entry.is_done() == done && self.has_news(*index, entry, last))
            .map(|(index, entry)| (entry.last_interval().and_then(|(_, end)| end), index))
            .collect();
        waiting.sort_by_key(|(end, _)| *end);
        waiting.into_iter().map(|(_, index)| index).collect()
    }

    fn has_news(&self, index: usize, entry: &Entry, last: bool) -> bool {
        let Some(printed) = self.printed.get(&index) else { return true };
        printed.state != state(entry)
            || last && entry.is_done() && !printed.ended
            || entry.log.count() > printed.lines
            || entry.parts.iter().any(|part| printed.wants(part))
    }

    fn unsaid(&self, trace: &Trace, index: usize) -> usize {
        let said = self.printed.get(&index).map_or(0, |printed| printed.lines);
        trace.entry(index).map_or(0, |entry| entry.log.count() - said)
    }

    fn block(&mut self, trace: &Trace, index: usize, now: Time, last: bool, out: &mut String) {
        let Some(entry) = trace.entry(index) else { return };
        if !self.has_news(index, entry, last) {
            return;
        }
        if !self.printed.contains_key(&index) {
            self.numbers += 1;
            self.printed.insert(index, Printed { number: self.numbers, ..Printed::default() });
        }
        if self.current.is_none_or(|(current, _)| current != index) {
            if let Some(other) = self.current.and_then(|(current, _)| self.printed.get(&current)) {
                out.push_str(&format!("#{} ...\n", other.number));
            }
            let number = self.printed.get(&index).map_or(0, |printed| printed.number);
            if std::mem::replace(&mut self.begun, true) {
                out.push('\n');
            }
            out.push_str(&format!("#{number} {}\n", entry.title));
            self.current = Some((index, now));
        }
        let Some(printed) = self.printed.get_mut(&index) else { return };
        for part in &entry.parts {
            if printed.wants(part) {
                out.push_str(&part_line(printed.number, part));
                printed.parts.insert(part.id.clone(), (part.current, part.timestamp, part.completed.is_some()));
            }
        }
        for line in entry.log.from(printed.lines) {
            out.push_str(&format!("#{} {} {}\n", printed.number, log_seconds(line.at), line.text));
        }
        printed.lines = entry.log.count();
        printed.state = state(entry);
        printed.ended = false;
        // Remote caches report parts after their step ended, so the last line waits for them. The last line of a failed step does not.
        if entry.is_done() && (last || entry.error.is_some() || !entry.has_open_part()) {
            out.push_str(&ending(self.paint, printed.number, trace, entry, now));
            printed.ended = true;
            self.current = None;
        }
    }
}

impl Printed {
    fn wants(&self, part: &Progress) -> bool {
        match self.parts.get(&part.id) {
            None => true,
            Some((_, _, true)) => part.completed.is_none(),
            Some(_) if part.completed.is_some() => true,
            Some((current, at, false)) => {
                let share = if part.total > 0 { (part.current - current) as f64 / part.total as f64 } else { 0.0 };
                share >= PROGRESS_PART || part.timestamp.seconds_since(*at) >= PROGRESS_SECONDS
            }
        }
    }
}

fn part_line(number: usize, part: &Progress) -> String {
    let mut line = format!("#{number} {}", super::text::title(&part.id));
    match (part.current, part.total) {
        (0, 0) => {}
        (current, 0) => line.push_str(&format!(" {}", bytes(current))),
        (current, total) => line.push_str(&format!(" {} / {}", bytes(current), bytes(total))),
    }
    if let Some(started) = part.started {
        let seconds = part.completed.unwrap_or(part.timestamp).seconds_since(started);
        if seconds > 0.01 {
            line.push_str(&format!(" {seconds:.1}s"));
        }
    }
    if part.completed.is_some() {
        line.push_str(" done");
    }
    line.push('\n');
    line
}

fn ending(paint: Paint, number: usize, trace: &Trace, entry: &Entry, now: Time) -> String {
    let text = match &entry.error {
        Some(_) if entry.is_canceled() => paint.warn("CANCELED"),
        // Each line of the error needs the step's number.
        Some(error) => paint.bad(&format!("ERROR: {}", error.trim_end().replace('\n', &format!("\n#{number} ")))),
        None if entry.cached => "CACHED".to_owned(),
        None => format!("DONE {:.1}s", trace.seconds(entry, now)),
    };
    format!("#{number} {text}\n")
}

#[cfg(test)]
mod tests;
