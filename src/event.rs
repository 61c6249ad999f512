//! The events of a run, and the sender that passes them to `report`.
//!
//! The types are those of BuildKit's status stream (buildkit `client.SolveStatus`). hakobi reports its own work, like a push, as
//! vertexes too. One display therefore shows everything, and `--progress rawjson` prints the same as buildx.

use serde::Serialize;
use tokio::sync::mpsc;

use crate::hidden::Hidden;
use crate::redact::{redact, redacted_bytes};

/// An event of a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// Steps began, progressed or ended.
    Status(Status),
    /// A sentence for the user that reports no fault: "no image at … yet".
    Note(String),
    /// A fault that does not fail the run.
    Warning(String),
    /// A line of `--debug`.
    Debug(String),
}

impl Event {
    fn hide(&mut self, hidden: &Hidden) {
        match self {
            Self::Note(text) | Self::Warning(text) | Self::Debug(text) => hidden.hide(text),
            Self::Status(status) => {
                for vertex in &mut status.vertexes {
                    hidden.hide(&mut vertex.name);
                    hidden.hide(&mut vertex.error);
                }
                for progress in &mut status.statuses {
                    hidden.hide(&mut progress.id);
                    hidden.hide(&mut progress.name);
                }
                for warning in &mut status.warnings {
                    if let Ok(text) = std::str::from_utf8(&warning.short)
                        && let std::borrow::Cow::Owned(text) = hidden.text(text)
                    {
                        warning.short = text.into_bytes();
                    }
                    hidden.hide(&mut warning.url);
                }
            }
        }
    }

    /// Removes the values that no output may show.
    fn redact(&mut self) {
        match self {
            Self::Status(status) => status.redact(),
            Self::Note(text) | Self::Warning(text) | Self::Debug(text) => redact(text),
        }
    }
}

/// The changes in a build. As in BuildKit, each message contains only new facts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Steps that began, ended or were found cached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vertexes: Vec<Vertex>,
    /// Progress within steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<Progress>,
    /// The output of commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log>,
    /// The frontend's warnings about the Dockerfile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<BuildWarning>,
}

impl Status {
    fn redact(&mut self) {
        for vertex in &mut self.vertexes {
            redact(&mut vertex.name);
            redact(&mut vertex.error);
        }
        for progress in &mut self.statuses {
            redact(&mut progress.id);
            redact(&mut progress.name);
        }
        for bytes in self.logs.iter_mut().map(|log| &mut log.data).chain(self.warnings.iter_mut().map(|one| &mut one.short)) {
            if let std::borrow::Cow::Owned(clean) = redacted_bytes(bytes) {
                *bytes = clean;
            }
        }
        self.warnings.iter_mut().for_each(|warning| redact(&mut warning.url));
    }
}

/// A point in time, as RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub jiff::Timestamp);

impl Time {
    /// Returns the current time.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// Returns the seconds from `earlier` to this time, never negative.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0.as_millisecond() - earlier.0.as_millisecond()).max(0) as f64 / 1000.0
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vertex {
    /// The step's ID: BuildKit's vertex digest, or an invented one for hakobi's own work.
    pub digest: String,
    /// The steps it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The name: `[build 2/3] RUN make`, `[internal] load build context`, …
    pub name: String,
    /// The time when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The time when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Time>,
    /// Whether its result was in the cache.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// The reason why it failed. Empty if it did not fail.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Progress of one part of a step, such as a layer download or an export.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The ID of the part.
    pub id: String,
    /// The step of the part.
    pub vertex: String,
    /// The activity (`extracting`, `exporting layers`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The total, in bytes. 0 if unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    /// The progress so far, in bytes.
    pub current: i64,
    /// The time of this progress.
    pub timestamp: Time,
    /// The time when the part began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The time when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Time>,
}

impl Progress {
    /// Returns whether a layer is being downloaded. If the step is no base image, its result was in a cache: BuildKit shows such a
    /// step as run when it needs the layers.
    #[must_use]
    pub fn is_pull(&self) -> bool {
        self.id.starts_with("sha256:") || self.id.starts_with("extracting sha256:")
    }
}

/// The output of a step's command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    /// The step.
    pub vertex: String,
    /// 1 standard output, 2 standard error.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream: i64,
    /// The bytes, as base64 in JSON.
    #[serde(serialize_with = "base64")]
    pub data: Vec<u8>,
    /// The time of the output.
    pub timestamp: Time,
}

/// The frontend's warning about a line.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildWarning {
    /// The step.
    pub vertex: String,
    /// The severity.
    pub level: i64,
    /// The short message, as base64 in JSON.
    pub short: Vec<u8>,
    /// The URL of the documentation.
    pub url: String,
    /// The file that the warning is about.
    pub file: String,
    /// The first line in the file, from 1. 0 if unknown.
    pub line: i32,
}

impl Serialize for BuildWarning {
    /// Serializes it as `client.VertexWarning`, whose place is a source's name and a list of ranges.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            vertex: &'a str,
            #[serde(skip_serializing_if = "is_zero")]
            level: i64,
            #[serde(serialize_with = "base64", skip_serializing_if = "<[u8]>::is_empty")]
            short: &'a [u8],
            #[serde(skip_serializing_if = "str::is_empty")]
            url: &'a str,
            #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
            source: Option<Source<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            range: Option<[Range; 1]>,
        }
        #[derive(Serialize)]
        struct Source<'a> {
            filename: &'a str,
        }
        #[derive(Serialize)]
        struct Range {
            start: Position,
            end: Position,
        }
        #[derive(Serialize)]
        struct Position {
            line: i32,
        }
        let position = || Position { line: self.line };
        Wire {
            vertex: &self.vertex,
            level: self.level,
            short: &self.short,
            url: &self.url,
            source: (!self.file.is_empty()).then_some(Source { filename: &self.file }),
            range: (self.line > 0).then(|| [Range { start: position(), end: position() }]),
        }
        .serialize(serializer)
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn base64<S: serde::Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine as _;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(data))
}

/// Sends events. It never blocks and never fails: without a receiver only the display is missing.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::UnboundedSender<Event>,
    hidden: Hidden,
}

impl Events {
    /// Returns a sender and the receiver that `report` reads.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, hidden: Hidden::default() }, receiver)
    }

    /// Returns the hidden values, which all clones of this sender share.
    #[must_use]
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// Returns a sender without a receiver.
    #[must_use]
    pub fn none() -> Self {
        Self::channel().0
    }

    /// Sends an event without hidden values. In the output of commands it hides only hakobi's own secrets.
    pub fn emit(&self, mut event: Event) {
        event.hide(&self.hidden);
        event.redact();
        let _ = self.sender.send(event);
    }

    /// Reports a note that is no fault.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note(text.into()));
    }

    /// Reports a fault that does not fail the run.
    pub fn warning(&self, text: impl Into<String>) {
        self.emit(Event::Warning(text.into()));
    }

    /// Begins a step of hakobi's own. The caller must end it with [`Step::done`] or [`Step::failed`].
    #[must_use]
    pub fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        let started = Time::now();
        let digest = format!("hakobi:{:016x}", rand::random::<u64>());
        let step = Step { events: self.clone(), digest, name, started };
        step.send(None, false, String::new());
        step
    }
}

/// A step of hakobi's own while it runs.
#[derive(Debug, Clone)]
pub struct Step {
    events: Events,
    digest: String,
    name: String,
    started: Time,
}

impl Step {
    /// Reports the bytes of one part (`layer sha256:…`) so far. `total` is 0 if unknown. `ended` is true once.
    pub fn progress(&self, id: &str, current: u64, total: u64, ended: bool) {
        let now = Time::now();
        self.events.emit(Event::Status(Status {
            statuses: vec![Progress {
                id: id.to_owned(),
                vertex: self.digest.clone(),
                name: String::new(),
                total: i64::try_from(total).unwrap_or(i64::MAX),
                current: i64::try_from(current).unwrap_or(i64::MAX),
                timestamp: now,
                started: Some(self.started),
                completed: ended.then_some(now),
            }],
            ..Status::default()
        }));
    }

    /// Ends the step.
    pub fn done(&self) {
        self.send(Some(Time::now()), false, String::new());
    }

    /// Ends the step as cached: there was nothing to do.
    pub fn cached(&self) {
        self.send(Some(Time::now()), true, String::new());
    }

    /// Ends the step with an error.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        self.send(Some(Time::now()), false, error.to_string());
    }

    fn send(&self, completed: Option<Time>, cached: bool, error: String) {
        self.events.emit(Event::Status(Status {
            vertexes: vec![Vertex {
                digest: self.digest.clone(),
                inputs: Vec::new(),
                name: self.name.clone(),
                started: Some(self.started),
                completed,
                cached,
                error,
            }],
            ..Status::default()
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_values_are_in_no_event() {
        let (events, mut receiver) = Events::channel();
        events.hidden().add_variable("API_TOKEN", Some("canary-4711"));
        let step = events.clone().step("COPY canary-4711 /");
        step.progress("canary-4711", 1, 2, false);
        step.failed(&"/canary-4711: not found");
        events.note("canary-4711 is new");
        events.warning("canary-4711 is gone");
        let short = b"canary-4711".to_vec();
        let warning = BuildWarning { vertex: String::new(), level: 1, short, url: String::new(), file: String::new(), line: 1 };
        events.emit(Event::Status(Status { warnings: vec![warning], ..Status::default() }));
        drop((events, step));
        let mut count = 0;
        while let Ok(event) = receiver.try_recv() {
            let text = format!("{event:?}");
            assert!(!text.contains("canary-4711") && !text.contains("99, 97, 110, 97"), "{text}");
            count += 1;
        }
        assert_eq!(count, 6);
    }
}
