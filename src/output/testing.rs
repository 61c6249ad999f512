//! Recorded runs for tests.

use crate::event::{BuildWarning, Event, Log, Progress, Status, Time, Vertex};

/// Returns the time that is `seconds` after a fixed start.
pub(super) fn at(seconds: f64) -> Time {
    Time(jiff::Timestamp::from_millisecond(1_700_000_000_000 + (seconds * 1000.0).round() as i64).unwrap())
}

/// Returns a part of `vertex` that began at 0.
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

/// Events with their times of arrival, in seconds.
#[derive(Default)]
pub(super) struct Script(Vec<(f64, Event)>);

impl Script {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn events(&self) -> &[(f64, Event)] {
        &self.0
    }

    /// Sorts the events by their time of arrival. Events of the same time keep their order.
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

/// Returns a run with many kinds of events: a context, a cached step, parallel steps, progress, unusual logs and a failure.
pub(super) fn eventful() -> Script {
    let mut s = Script::new();
    s.run("df", "[internal] load build definition from Dockerfile", 0.0, 0.1);
    s.progress(0.05, part("df", "transferring dockerfile: 120B", 0, 0, Some(0.05)));
    s.known("r2", "[build 2/3] RUN make");
    s.known("end", "[stage-1 3/3] RUN true");
    s.begin("from", "[build 1/3] FROM docker.io/library/alpine:3.20", 0.2);
    let layer = format!("sha256:{}", "ab12".repeat(16));
    s.progress(0.3, part("from", &layer, 1_000_000, 40_100_000, None));
    s.progress(0.4, part("from", &layer, 1_200_000, 40_100_000, None));
    s.progress(1.5, part("from", &layer, 12_300_000, 40_100_000, None));
    s.progress(2.0, part("from", &layer, 40_100_000, 40_100_000, Some(2.0)));
    s.run("from", "[build 1/3] FROM docker.io/library/alpine:3.20", 0.2, 2.1);
    s.cached("copy", "[stage-1 2/3] COPY <<EOF /etc/motd\nhello\nEOF", 2.2);
    s.begin("r2", "[build 2/3] RUN make", 2.3);
    s.begin("r3", "[other 2/2] RUN pip install -r requirements.txt", 2.4);
    s.log(2.5, "r2", "cc -c a.c\ncc -c b.c\n");
    s.log(2.6, "r3", "\u{1b}[32mCollecting\u{1b}[0m flask\n");
    s.log(3.0, "r3", "10%\r50%\r");
    s.log(4.0, "r3", "100%\r\n");
    s.warning(4.1, "df", "JSONArgsRecommended: JSON arguments recommended for CMD", 9);
    s.warning(4.2, "df", "JSONArgsRecommended: JSON arguments recommended for CMD", 9);
    s.event(4.3, Event::Note("no cached image at s3://bucket/x yet".into()));
    s.log(9.0, "r2", "cc: error: 運び.c not found");
    s.fail("r2", "[build 2/3] RUN make", 2.3, 9.1, "process \"/bin/sh -c make\" did not complete successfully: exit code: 2");
    s.fail("r3", "[other 2/2] RUN pip install -r requirements.txt", 2.4, 9.2, "rpc error: context canceled");
    s.in_order()
}
