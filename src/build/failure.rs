//! A failed solve in the user's terms: the daemon's message, and the lines of the user's file that it is about.

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use prost::Message;

use crate::error::Error;

/// BuildKit's `errdefs.Source`: which lines an error is about.
#[derive(Clone, PartialEq, prost::Message)]
struct Source {
    #[prost(message, optional, tag = "1")]
    info: Option<pb::SourceInfo>,
    #[prost(message, repeated, tag = "2")]
    ranges: Vec<pb::Range>,
}

/// What the daemon says when it refuses.
pub type Refusal = tonic::Status;

/// Lines shown around those that an error is about.
const AROUND: usize = 2;

/// Where a build was when it failed: its graph and the step that ended with an error.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// The graph, with the user's file in it.
    pub definition: &'a pb::Definition,
    /// The step's digest.
    pub step: &'a str,
}

/// The build's failure. `local` is what we could not read ourselves: where the daemon would only say that we failed.
#[must_use]
pub fn failure(status: &tonic::Status, local: Option<String>, failed: Option<Failed<'_>>) -> Error {
    if let Some(local) = local {
        let error = Error::build(local);
        return error.hint("make it readable, or list it in .dockerignore");
    }
    let message = plain(status.message());
    // Docker 20.10 names no lines; the graph knows them.
    let text = match excerpt(status).or_else(|| lines(&failed?.source()?)) {
        Some(excerpt) => format!("{excerpt}{message}"),
        None => message.to_owned(),
    };
    let old_frontend =
        ["unsupported frontend capability", "unsupported request frontend."].iter().any(|words| message.contains(words));
    let error = Error::build(text);
    if old_frontend {
        return error.hint("this daemon's own Dockerfile frontend is too old for that; a first line `# syntax=docker/dockerfile:1` brings a newer one");
    }
    error
}

/// The message without what gRPC and the daemon put before it on its way.
fn plain(mut message: &str) -> &str {
    loop {
        let rest = message
            .strip_prefix("rpc error: code = ")
            .and_then(|rest| rest.split_once(" desc = "))
            .map(|(_, rest)| rest)
            .or_else(|| message.strip_prefix("failed to solve with frontend dockerfile.v0: "))
            .or_else(|| message.strip_prefix("failed to create LLB definition: "))
            .or_else(|| message.strip_prefix("failed to solve: "));
        match rest {
            Some(rest) => message = rest,
            None => return message,
        }
    }
}

impl Failed<'_> {
    fn source(self) -> Option<Source> {
        let source = self.definition.source.as_ref()?;
        let location = source.locations.get(self.step)?.locations.first()?;
        let info = source.infos.get(usize::try_from(location.source_index).ok()?)?.clone();
        Some(Source { info: Some(info), ranges: location.ranges.clone() })
    }
}

/// Whether trying again may help: the network, or a registry's or containerd's bad moment, and nothing that a step did.
#[must_use]
pub fn is_passing(status: &tonic::Status) -> bool {
    let message = status.message();
    let of_a_step = message.contains("did not complete successfully") || message.contains("dockerfile parse error");
    const PASSING: [&str; 15] = [
        "connection reset",
        "connection refused",
        "i/o timeout",
        "TLS handshake timeout",
        "context deadline exceeded",
        "unexpected EOF",
        "no such host",
        "temporary failure in name resolution",
        "unexpected status code 429",
        "unexpected status code 5",
        "unexpected status: 429",
        "unexpected status: 5",
        "unexpected status from HEAD request",
        "toomanyrequests",
        // containerd's collector took a layer away that an image is just being unpacked on ("… does not exist: not found").
        "parent snapshot sha256:",
    ];
    !of_a_step && PASSING.iter().any(|passing| message.contains(passing))
}

/// The lines that the error's details name, as buildx shows them.
fn excerpt(status: &tonic::Status) -> Option<String> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let sources = details.iter().filter(|detail| detail.type_url.contains("errdefs.Source"));
    sources.filter_map(|detail| source(&detail.type_url, &detail.value)).find_map(|source| lines(&source))
}

fn source(type_url: &str, value: &[u8]) -> Option<Source> {
    if !type_url.ends_with("+json") {
        return Source::decode(value).ok();
    }
    #[derive(serde::Deserialize)]
    struct Json {
        info: Info,
        #[serde(default)]
        ranges: Vec<Range>,
    }
    #[derive(serde::Deserialize)]
    struct Info {
        filename: String,
        data: String,
    }
    #[derive(serde::Deserialize)]
    struct Range {
        start: Line,
        #[serde(default)]
        end: Line,
    }
    #[derive(serde::Deserialize, Default)]
    struct Line {
        #[serde(default)]
        line: i32,
    }
    use base64::Engine as _;
    let json: Json = serde_json::from_slice(value).ok()?;
    let data = base64::engine::general_purpose::STANDARD.decode(json.info.data).ok()?;
    let position = |line: Line| Some(pb::Position { line: line.line, character: 0 });
    Some(Source {
        info: Some(pb::SourceInfo { filename: json.info.filename, data, ..pb::SourceInfo::default() }),
        ranges: json
            .ranges
            .into_iter()
            .map(|range| pb::Range { start: position(range.start), end: position(range.end) })
            .collect(),
    })
}

fn lines(source: &Source) -> Option<String> {
    let info = source.info.as_ref()?;
    let range = source.ranges.first()?;
    let first = usize::try_from(range.start.as_ref()?.line).ok().filter(|line| *line > 0)?;
    let last = range.end.as_ref().and_then(|end| usize::try_from(end.line).ok()).unwrap_or(first).max(first);
    let text = String::from_utf8_lossy(&info.data);
    let mut out = format!("{}:{first}\n--------------------\n", info.filename);
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if number + AROUND >= first && number <= last + AROUND {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            out.push_str(&format!("{number:4} | {mark} {line}\n"));
        }
    }
    out.push_str("--------------------\n");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(type_url: &str, value: Vec<u8>) -> tonic::Status {
        let any = bollard_buildkit_proto::google::protobuf::Any { type_url: type_url.to_owned(), value };
        let details = rpc::Status { code: 2, message: String::new(), details: vec![any] };
        tonic::Status::with_details(tonic::Code::Unknown, "it broke", details.encode_to_vec().into())
    }

    #[test]
    fn the_lines_are_shown_in_both_encodings() {
        let text = b"FROM a\nRUN b\nRUN c\nRUN d\nRUN e\n".to_vec();
        let position = |line| Some(pb::Position { line, character: 0 });
        let source = Source {
            info: Some(pb::SourceInfo { filename: "Dockerfile".to_owned(), data: text, ..pb::SourceInfo::default() }),
            ranges: vec![pb::Range { start: position(2), end: position(2) }],
        };
        let json = br#"{"info":{"filename":"Dockerfile","data":"RlJPTSBhClJVTiBiClJVTiBjClJVTiBkClJVTiBlCg=="},"ranges":[{"start":{"line":2},"end":{"line":2}}]}"#;
        let binary = failure(&status("github.com/moby/buildkit/errdefs.Source", source.encode_to_vec()), None, None);
        let written = failure(&status("github.com/moby/buildkit/errdefs.Source+json", json.to_vec()), None, None);
        assert_eq!(binary.message(), written.message());
        assert!(
            binary.message().contains("Dockerfile:2") && binary.message().contains("   2 | >>> RUN b"),
            "{}",
            binary.message()
        );
        assert!(!binary.message().contains("RUN e"));
    }

    #[test]
    fn a_step_that_failed_is_never_tried_again() {
        assert!(is_passing(&tonic::Status::unknown("failed to do request: dial tcp: connection refused")));
        assert!(is_passing(&tonic::Status::not_found(
            "failed to prepare extraction snapshot \"extract-1\": parent snapshot sha256:94cf does not exist: not found"
        )));
        assert!(!is_passing(&tonic::Status::unknown(
            "process \"curl: connection refused\" did not complete successfully: exit code: 7"
        )));
        assert!(!is_passing(&tonic::Status::unknown("dockerfile parse error on line 1: unknown instruction")));
    }
}
