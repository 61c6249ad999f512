//! Converts BuildKit's status messages to events.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as api;

use crate::event::{BuildWarning, Log, Progress, Status, Time, Vertex};

pub(super) fn convert(response: api::StatusResponse) -> Status {
    Status {
        vertexes: response.vertexes.into_iter().map(vertex).collect(),
        statuses: response.statuses.into_iter().map(progress).collect(),
        logs: response
            .logs
            .into_iter()
            .map(|log| Log { vertex: log.vertex, stream: log.stream, data: log.msg, timestamp: at(log.timestamp) })
            .collect(),
        warnings: response.warnings.into_iter().map(warning).collect(),
    }
}

fn vertex(vertex: api::Vertex) -> Vertex {
    Vertex {
        digest: vertex.digest,
        inputs: vertex.inputs,
        name: vertex.name,
        started: time(vertex.started),
        completed: time(vertex.completed),
        cached: vertex.cached,
        error: vertex.error,
    }
}

fn progress(status: api::VertexStatus) -> Progress {
    Progress {
        id: status.id,
        vertex: status.vertex,
        name: status.name,
        total: status.total,
        current: status.current,
        timestamp: at(status.timestamp),
        started: time(status.started),
        completed: time(status.completed),
    }
}

fn warning(warning: api::VertexWarning) -> BuildWarning {
    BuildWarning {
        vertex: warning.vertex,
        level: warning.level,
        short: warning.short,
        url: warning.url,
        file: warning.info.map(|info| info.filename).unwrap_or_default(),
        line: warning.ranges.first().and_then(|range| range.start.as_ref()).map_or(0, |start| start.line),
    }
}

fn time(timestamp: Option<Timestamp>) -> Option<Time> {
    let timestamp = timestamp?;
    jiff::Timestamp::new(timestamp.seconds, timestamp.nanos).ok().map(Time)
}

fn at(timestamp: Option<Timestamp>) -> Time {
    time(timestamp).unwrap_or_else(Time::now)
}
