//! The rows of the page: one for each step and each of hakobi's tasks, with its times, its waiting time and its transfers.

use super::super::name::StepName;
use super::super::run::{RunReport, StepReport, StepStatus};
use super::super::trace::{Entry, Span, Trace};
use super::Run;
use crate::event::Progress;

/// The minimum time that is shown, in seconds.
const NOTHING: f64 = 0.05;
/// The prefix of the name of a step whose cached result replaces it.
const FROM_CACHE: &str = "[hakobi] from the cache: ";
/// The number of log lines shown for a failed step.
const LOG_LINES: usize = 200;

/// The activity in a time span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A command or a copy ran.
    Work,
    /// Bytes were transferred.
    Transfer,
    /// The step was ready, but had not begun.
    Waiting,
    /// The step failed.
    Failed,
}

/// The final state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The step ran.
    Ran,
    /// The result was in the cache.
    Cached,
    Failed,
    /// BuildKit canceled the step because another step failed.
    Stopped,
}

/// A layer, a file, or another part of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub name: String,
    pub span: Span,
    pub bytes: u64,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub name: String,
    pub state: State,
    /// The reason why the step ran, for a person. Empty if there is none.
    pub reason: String,
    pub bars: Vec<(Kind, Span)>,
    pub parts: Vec<Part>,
    pub log: Vec<String>,
    /// The position among the rows of its group.
    number: u32,
}

impl Row {
    /// Returns the seconds that it ran.
    pub fn seconds(&self) -> f64 {
        let ran = self.bars.iter().filter(|(kind, _)| *kind != Kind::Waiting);
        union(ran.map(|(_, span)| *span)).iter().map(|span| span.seconds()).sum()
    }

    /// Returns the transferred bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// The rows of one group: of hakobi, of the daemon, or of a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub name: String,
    pub rows: Vec<Row>,
}

/// Returns all rows: first hakobi's, then the daemon's, then those of each stage.
pub(super) fn groups(run: &Run, report: &RunReport) -> Vec<Group> {
    let mut groups: Vec<Group> = ["hakobi", "Docker"].map(|name| Group { name: name.to_owned(), rows: Vec::new() }).into();
    for (_, entry) in run.trace.started() {
        let (group, row) = row(run, report, entry);
        let place = groups.iter().position(|known| known.name == group).unwrap_or_else(|| {
            groups.push(Group { name: group, rows: Vec::new() });
            groups.len() - 1
        });
        // The same step in each solve of a build, or the same request to the daemon, shares one row.
        let rows = &mut groups[place].rows;
        match rows.iter_mut().find(|known| known.name == row.name && known.number == row.number) {
            Some(known) => known.merge(row),
            None => rows.push(row),
        }
    }
    groups.retain(|group| !group.rows.is_empty());
    groups.iter_mut().for_each(|group| group.rows.sort_by_key(|row| row.number));
    groups
}

/// Returns the time spans in which no row was active.
pub(super) fn idle(groups: &[Group], total: f64) -> Vec<Span> {
    let bars = groups.iter().flat_map(|group| &group.rows).flat_map(|row| &row.bars);
    let busy = union(bars.filter(|(kind, _)| *kind != Kind::Waiting).map(|(_, span)| *span));
    let mut idle = Vec::new();
    let mut at = 0.0;
    for span in busy.into_iter().chain([Span { start: total, end: total }]) {
        idle.push(Span { start: at, end: span.start.max(at) });
        at = span.end;
    }
    idle.retain(|span| span.seconds() >= NOTHING);
    idle
}

fn row(run: &Run, report: &RunReport, entry: &Entry) -> (String, Row) {
    let trace = &run.trace;
    // A cached result is shown as the step that it replaces.
    let from_cache = entry.title.strip_prefix(FROM_CACHE);
    let title = from_cache.unwrap_or(&entry.title);
    let name = StepName::parse(title);
    let (group, number, shown) = match &name {
        Some(name) => {
            let platform = if name.platform.is_empty() { String::new() } else { format!(" {}", name.platform) };
            (format!("Stage {}{platform}", name.stage), name.number, name.instruction.clone())
        }
        None => match title.strip_prefix("[hakobi] ") {
            Some(title) => ("hakobi".to_owned(), 0, title.to_owned()),
            None if entry.own => ("hakobi".to_owned(), 0, title.to_owned()),
            None => ("Docker".to_owned(), 0, title.trim_start_matches("[internal] ").to_owned()),
        },
    };
    let parts: Vec<Part> = entry.parts.iter().filter_map(|part| self::part(run, entry, part)).collect();
    let told = name.as_ref().filter(|name| !name.is_base()).and_then(|name| told(report, name));
    let state = match told {
        _ if entry.is_failed() => State::Failed,
        _ if entry.is_canceled() => State::Stopped,
        Some(step) if step.status == StepStatus::Hit => State::Cached,
        None if entry.cached || from_cache.is_some() => State::Cached,
        _ => State::Ran,
    };
    let moved = parts.iter().any(|part| part.bytes > 0);
    // A cached step or a base image takes only the time of its download.
    let kind = match state {
        State::Failed => Kind::Failed,
        _ if moved && (entry.own || state == State::Cached || name.as_ref().is_none_or(StepName::is_base)) => Kind::Transfer,
        _ => Kind::Work,
    };
    let spans = trace.spans(entry, run.began, run.ended);
    let mut bars: Vec<(Kind, Span)> = spans.iter().map(|span| (kind, *span)).collect();
    if state != State::Cached
        && let (Some(first), Some(ready)) = (spans.first(), ready(run, entry))
        && first.start - ready >= NOTHING
    {
        bars.insert(0, (Kind::Waiting, Span { start: ready, end: first.start }));
    }
    let log = if state == State::Failed { entry.log.tail(LOG_LINES) } else { Vec::new() };
    let reason = told.map(|step| step.reason.clone()).unwrap_or_default();
    (group, Row { name: shown, state, reason, bars, parts, log, number })
}

/// Returns the time at which all inputs of a step were ready. Returns `None` if unknown.
fn ready(run: &Run, entry: &Entry) -> Option<f64> {
    let end = |digest: &String| {
        let spans = run.trace.spans(run.trace.by_digest(digest)?, run.began, run.ended);
        spans.first().map(|span| span.end)
    };
    entry.inputs.iter().map(end).collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
}

/// Returns the report's entry for a step.
fn told<'a>(report: &'a RunReport, name: &StepName) -> Option<&'a StepReport> {
    report.steps.iter().find(|step| step.stage == name.stage && step.instruction == name.instruction)
}

fn part(run: &Run, entry: &Entry, part: &Progress) -> Option<Part> {
    let span = Trace::part_span(&run.trace, entry, part, run.began)?;
    let id = super::text::title(&part.id);
    let (doing, id) = match id.split_once("sha256:") {
        // The download before already counted the bytes that are now extracted.
        Some((before, hex)) => (before.to_owned(), hex.get(..12).unwrap_or(hex).to_owned()),
        None => (String::new(), id),
    };
    let bytes = if doing.starts_with("extracting") { 0 } else { u64::try_from(part.current).unwrap_or(0) };
    let name = format!("{}{id}", if doing == "layer " { "" } else { &doing });
    (bytes > 0 || span.seconds() >= NOTHING).then_some(Part { name, span, bytes })
}

impl Row {
    /// Merges the same step of another solve. It ran if it ran in any solve.
    fn merge(&mut self, other: Self) {
        let rank = |state| match state {
            State::Failed => 3,
            State::Ran => 2,
            State::Stopped => 1,
            State::Cached => 0,
        };
        if rank(other.state) > rank(self.state) {
            self.state = other.state;
        }
        let bars = other.bars.into_iter().filter(|(kind, _)| *kind != Kind::Waiting);
        self.bars.extend(bars);
        self.parts.extend(other.parts);
        self.log.extend(other.log);
    }
}

/// Merges overlapping time spans.
fn union(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = spans.collect();
    all.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut out: Vec<Span> = Vec::new();
    for span in all {
        match out.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => out.push(span),
        }
    }
    out
}
