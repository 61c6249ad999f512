//! Recorded runs for tests.

use crate::event::{BuildWarning, Event, Log, Progress, Status, Time, Vertex};

/// A point in time, `seconds` after an arbitrary one.
pub(super) fn at(seconds: f64) -> Time {
    Time(jiff::Timestamp::from_millisecond(1_700_000_000_000 + (seconds * 1000.0).round() as i64).unwrap())
}

/// A part of `vertex` that began at 0.
pub(super) fn part(vertex: &str, id: &str, current: i64, total: i64, completed: Option<f64>) -> Progress {
    Progress {
        id: id.into(),
        vertex: vertex.into(),
        name: String::new(),
        total,
        current,
        timestamp: at(0.0),
        started: Some(at(0.0)),
        completed: completed.map(at),
    }
}

/// Events with the time at which each arrives.
#[derive(Default)]
pub(super) struct Script(Vec<(f64, Event)>);

impl Script {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn events(&self) -> &[(f64, Event)] {
        &self.0
    }

    /// In order of arrival; those of the same time stay as they were written.
    pub fn in_order(mut self) -> Self {
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        self
    }

    pub fn event(&mut self, seconds: f64, event: Event) {
        self.0.push((seconds, event));
    }

    fn status(&mut self, seconds: f64, status: Status) {
        self.event(seconds, Event::Status(status));
    }

    fn vertex(&mut self, seconds: f64, digest: &str, name: &str, times: (Option<f64>, Option<f64>), cached: bool, error: &str) {
        let vertex = Vertex {
            digest: digest.into(),
            inputs: Vec::new(),
            name: name.into(),
            started: times.0.map(at),
            completed: times.1.map(at),
            cached,
            error: error.into(),
        };
        self.status(seconds, Status { vertexes: vec![vertex], ..Status::default() });
    }

    pub fn known(&mut self, digest: &str, name: &str) {
        self.vertex(0.0, digest, name, (None, None), false, "");
    }

    pub fn begin(&mut self, digest: &str, name: &str, start: f64) {
        self.vertex(start, digest, name, (Some(start), None), false, "");
    }

    pub fn run(&mut self, digest: &str, name: &str, start: f64, end: f64) {
        self.begin(digest, name, start);
        self.vertex(end, digest, name, (Some(start), Some(end)), false, "");
    }

    pub fn fail(&mut self, digest: &str, name: &str, start: f64, end: f64, error: &str) {
        self.begin(digest, name, start);
        self.vertex(end, digest, name, (Some(start), Some(end)), false, error);
    }

    pub fn cached(&mut self, digest: &str, name: &str, when: f64) {
        self.vertex(when, digest, name, (Some(when), Some(when)), true, "");
    }

    pub fn progress(&mut self, seconds: f64, part: Progress) {
        let part = Progress { timestamp: at(seconds), ..part };
        self.status(seconds, Status { statuses: vec![part], ..Status::default() });
    }

    pub fn log(&mut self, seconds: f64, digest: &str, text: &str) {
        let log = Log { vertex: digest.into(), stream: 1, data: text.into(), timestamp: at(seconds) };
        self.status(seconds, Status { logs: vec![log], ..Status::default() });
    }

    pub fn warning(&mut self, seconds: f64, digest: &str, short: &str, line: i32) {
        let warning = BuildWarning {
            vertex: digest.into(),
            level: 1,
            short: short.into(),
            url: "https://docs.docker.com/go/x/".into(),
            file: "Dockerfile".into(),
            line,
        };
        self.status(seconds, Status { warnings: vec![warning], ..Status::default() });
    }
}
