//! Collects the status stream into the state of every step. The live display and the lines both read it.

use std::collections::{BTreeMap, HashMap};

use super::log::StepLog;
use super::text;
use crate::event::{BuildWarning, Progress, Status, Time, Vertex};

/// All steps of a run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    entries: Vec<Entry>,
    by_digest: HashMap<String, usize>,
    order: Vec<usize>,
    warnings: Vec<BuildWarning>,
    // The difference of our clock from the daemon's, in milliseconds. The times of hakobi's own steps are from our clock.
    behind: Option<i64>,
}

/// A time span, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub start: f64,
    pub end: f64,
}

impl Span {
    /// Returns the length, in seconds.
    pub fn seconds(self) -> f64 {
        self.end - self.start
    }
}

/// A step.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The name, in one line.
    pub title: String,
    /// Whether the result was in the cache.
    pub cached: bool,
    /// The error, if the step failed.
    pub error: Option<String>,
    /// The parts, in the order in which they began.
    pub parts: Vec<Progress>,
    /// The output of the step's command.
    pub log: StepLog,
    /// The digests of the steps that it needs.
    pub inputs: Vec<String>,
    /// Whether it is hakobi's own step, and not the daemon's.
    pub own: bool,
    // Start and end of each run. A step may run several times: BuildKit downloads a lazy layer when it first needs it.
    intervals: BTreeMap<Time, Option<Time>>,
}

impl Entry {
    /// Returns whether it ever began.
    pub fn is_started(&self) -> bool {
        !self.intervals.is_empty()
    }

    /// Returns the start of its last run, and its end, if it ended. Returns `None` if it never began.
    pub fn last_interval(&self) -> Option<(Time, Option<Time>)> {
        self.intervals.last_key_value().map(|(start, end)| (*start, *end))
    }

    /// Returns whether its last run ended.
    pub fn is_done(&self) -> bool {
        self.last_interval().is_some_and(|(_, end)| end.is_some())
    }

    /// Returns whether BuildKit canceled it because another step failed.
    pub fn is_canceled(&self) -> bool {
        self.error.as_deref().is_some_and(|error| error.ends_with("context canceled"))
    }

    /// Returns whether the step itself failed.
    pub fn is_failed(&self) -> bool {
        self.error.is_some() && !self.is_canceled()
    }

    /// Returns whether one of its parts has not ended.
    pub fn has_open_part(&self) -> bool {
        self.parts.iter().any(|part| part.completed.is_none())
    }

    fn update(&mut self, vertex: &Vertex) {
        self.title = text::title(&vertex.name);
        if !vertex.inputs.is_empty() {
            self.inputs.clone_from(&vertex.inputs);
        }
        // The daemon repeats the announcement of a step without times after the step began.
        let Some(started) = vertex.started else { return };
        self.intervals.insert(started, vertex.completed);
        self.cached = vertex.cached;
        self.error = (!vertex.error.is_empty()).then(|| text::clean(&vertex.error));
        if vertex.completed.is_some() {
            self.log.flush();
        }
    }
}

impl Trace {
    /// Applies new messages of the status stream. `now` is from our clock.
    pub fn apply(&mut self, status: &Status, now: Time) {
        for vertex in &status.vertexes {
            self.vertex(vertex, now);
        }
        for part in &status.statuses {
            let Some(entry) = self.by_digest.get(&part.vertex).map(|index| &mut self.entries[*index]) else { continue };
            match entry.parts.iter_mut().find(|known| known.id == part.id) {
                Some(known) => *known = Progress { started: known.started, ..part.clone() },
                // hakobi's own steps report no start of a part, so the part starts with its first message.
                None if entry.own => entry.parts.push(Progress { started: Some(part.timestamp), ..part.clone() }),
                None if part.started.is_some() => entry.parts.push(part.clone()),
                None => {}
            }
        }
        for log in &status.logs {
            let Some(entry) = self.by_digest.get(&log.vertex).map(|index| &mut self.entries[*index]) else { continue };
            let at = entry.last_interval().map_or(0.0, |(start, _)| log.timestamp.seconds_since(start));
            entry.log.push(&log.data, at);
            if entry.is_done() {
                entry.log.flush();
            }
        }
        for warning in &status.warnings {
            // A run may compile the same Dockerfile several times.
            let same =
                |known: &BuildWarning| (&known.short, &known.file, known.line) == (&warning.short, &warning.file, warning.line);
            if !self.warnings.iter().any(same) {
                self.warnings.push(warning.clone());
            }
        }
    }

    fn vertex(&mut self, vertex: &Vertex, now: Time) {
        let next = self.entries.len();
        let index = *self.by_digest.entry(vertex.digest.clone()).or_insert(next);
        if index == next {
            self.entries.push(Entry { own: vertex.digest.starts_with("hakobi:"), ..Entry::default() });
        }
        let entry = &mut self.entries[index];
        let was_started = entry.is_started();
        entry.update(vertex);
        if entry.is_started() && !was_started {
            self.order.push(index);
        }
        if let (false, Some(last)) = (entry.own, vertex.completed.or(vertex.started)) {
            let behind = now.0.as_millisecond() - last.0.as_millisecond();
            // The message with the shortest delay gives the best estimate.
            self.behind = Some(self.behind.map_or(behind, |known| known.min(behind)));
        }
    }

    /// Returns the number of known steps, and of those that ended.
    pub fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.iter().filter(|entry| entry.is_done()).count())
    }

    /// Returns the step with this number.
    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// Returns the steps that began, with their numbers, in the order in which they began.
    pub fn started(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.order.iter().map(|index| (*index, &self.entries[*index]))
    }

    /// Returns the frontend's warnings, each once.
    pub fn warnings(&self) -> &[BuildWarning] {
        &self.warnings
    }

    /// Returns the seconds that a step ran, until `now` if it is still running. Overlapping runs count once.
    pub fn seconds(&self, entry: &Entry, now: Time) -> f64 {
        let now = self.clock_of(entry, now);
        let mut total = 0;
        let mut covered = i64::MIN;
        for (start, end) in &entry.intervals {
            let start = start.0.as_millisecond().max(covered);
            let end = end.map_or(now, |end| end.0.as_millisecond());
            total += (end - start).max(0);
            covered = covered.max(end);
        }
        total as f64 / 1000.0
    }

    /// Returns the seconds that a part took, until `now` if it has not ended.
    pub fn part_seconds(&self, entry: &Entry, part: &Progress, now: Time) -> f64 {
        // A part that a failed step left open ends with the step.
        let open_end =
            entry.last_interval().and_then(|(_, end)| end).map_or(self.clock_of(entry, now), |end| end.0.as_millisecond());
        let end = part.completed.map_or(open_end, |end| end.0.as_millisecond());
        part.started.map_or(0.0, |start| (end - start.0.as_millisecond()).max(0) as f64 / 1000.0)
    }

    /// Returns the runs of a step, in seconds since `began` on our clock. A run without an end lasts until `now`.
    pub fn spans(&self, entry: &Entry, began: Time, now: Time) -> Vec<Span> {
        let span = |(start, end): (&Time, &Option<Time>)| {
            self.span(entry, *start, end.unwrap_or_else(|| self.daemons(entry, now)), began)
        };
        entry.intervals.iter().map(span).collect()
    }

    /// Returns the time span of a part, in seconds since `began` on our clock. Returns `None` if its start is unknown.
    pub fn part_span(&self, entry: &Entry, part: &Progress, began: Time) -> Option<Span> {
        Some(self.span(entry, part.started?, part.completed.unwrap_or(part.timestamp), began))
    }

    fn span(&self, entry: &Entry, start: Time, end: Time, began: Time) -> Span {
        let here = |time: Time| {
            let behind = if entry.own { 0 } else { self.behind.unwrap_or(0) };
            (time.0.as_millisecond() + behind - began.0.as_millisecond()).max(0) as f64 / 1000.0
        };
        Span { start: here(start), end: here(end).max(here(start)) }
    }

    /// Converts a time of our clock to the clock of the step's times.
    fn daemons(&self, entry: &Entry, now: Time) -> Time {
        jiff::Timestamp::from_millisecond(self.clock_of(entry, now)).map_or(now, Time)
    }

    /// Returns the step with this digest.
    pub fn by_digest(&self, digest: &str) -> Option<&Entry> {
        self.by_digest.get(digest).and_then(|index| self.entries.get(*index))
    }

    /// Returns the seconds since the step's current run began.
    pub fn seconds_of_run(&self, entry: &Entry, now: Time) -> f64 {
        let now = self.clock_of(entry, now);
        entry.last_interval().map_or(0.0, |(start, _)| (now - start.0.as_millisecond()).max(0) as f64 / 1000.0)
    }

    fn clock_of(&self, entry: &Entry, now: Time) -> i64 {
        now.0.as_millisecond() - if entry.own { 0 } else { self.behind.unwrap_or(0) }
    }

    /// Makes lines of the output of running steps that is unended for at least `older` seconds.
    pub fn flush_open_lines(&mut self, older: f64, now: Time) {
        for index in &self.order {
            let entry = &self.entries[*index];
            let Some(since) = entry.log.open_since() else { continue };
            if self.seconds_of_run(entry, now) - since >= older {
                self.entries[*index].log.flush();
            }
        }
    }

    /// Drops the logs of steps that succeeded or were canceled.
    pub fn trim(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_done() && !entry.is_failed()) {
            entry.log.forget();
        }
    }
}
