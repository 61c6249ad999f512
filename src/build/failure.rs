//! A failed solve in the user's terms: the daemon's message, and the lines of the user's file that it is about.

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use prost::Message;

use super::excerpt::Source;
use crate::error::Error;

/// What the daemon says when it refuses.
pub type Refusal = tonic::Status;

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
pub fn failure(status: &tonic::Status, local: Option<(String, &'static str)>, failed: Option<Failed<'_>>) -> Error {
    if let Some((local, hint)) = local {
        return Error::build(local).hint(hint);
    }
    let message = plain(status.message());
    // Docker 20.10 names no lines; the graph knows them.
    let text = match excerpt(status).or_else(|| failed?.source()?.excerpt()) {
        Some(excerpt) => format!("{excerpt}{message}"),
        None => message.to_owned(),
    };
    let old_frontend =
        ["unsupported frontend capability", "unsupported request frontend."].iter().any(|words| message.contains(words));
    let error = Error::build(text);
    if old_frontend {
        return error.hint(
            "put `# syntax=docker/dockerfile:1` in the first line: this daemon's own Dockerfile frontend is too old for that",
        );
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

/// Whether the connection to the daemon broke off: what the daemon itself answers has no error of this side behind it.
#[must_use]
pub fn is_cut_off(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The lines that the error's details name, as buildx shows them: each source once.
fn excerpt(status: &tonic::Status) -> Option<String> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let mut all: Vec<String> = Vec::new();
    for excerpt in details.iter().filter_map(|detail| Source::from_detail(detail)?.excerpt()) {
        if !all.contains(&excerpt) {
            all.push(excerpt);
        }
    }
    (!all.is_empty()).then(|| all.concat())
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
