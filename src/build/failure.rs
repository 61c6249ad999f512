//! Describes a failed solve for the user: the daemon's message, and the lines of the user's file that it names.

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use prost::Message;

use super::excerpt::Source;
use crate::error::Error;

/// The daemon's answer when it refuses.
pub type Refusal = tonic::Status;

/// The state of a failed build: its graph and the step that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// The graph, with the user's file in it.
    pub definition: &'a pb::Definition,
    /// The step's digest.
    pub step: &'a str,
}

/// Returns the build's failure. `local` is the error about a file that hakobi itself could not read: the daemon's message would
/// only say that hakobi failed.
#[must_use]
pub fn failure(status: &tonic::Status, local: Option<(String, &'static str)>, failed: Option<Failed<'_>>) -> Error {
    if let Some((local, hint)) = local {
        return Error::build(local).hint(hint);
    }
    let message = plain(status.message());
    // Docker 20.10 names no lines, but the graph contains them.
    let text = match excerpt(status).or_else(|| failed?.source()?.excerpt()) {
        Some(excerpt) => format!("{excerpt}{message}"),
        None => message.to_owned(),
    };
    let old_frontend =
        ["unsupported frontend capability", "unsupported request frontend."].iter().any(|words| message.contains(words));
    let is_full = message.to_ascii_lowercase().contains("no space left on device");
    let error = Error::build(text);
    if is_full {
        return error.hint("free space on the disk of the Docker daemon (`docker system df` shows what is on it)");
    }
    if old_frontend {
        return error.hint(
            "put `# syntax=docker/dockerfile:1` in the first line: this daemon's own Dockerfile frontend is too old for that",
        );
    }
    error
}

/// Returns the message without the prefixes of gRPC and the daemon.
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

/// Returns whether a retry may help: the network, a registry or containerd failed temporarily, and no step failed.
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
        // containerd's collector removed a layer while an image was being unpacked on it ("… does not exist: not found").
        "parent snapshot sha256:",
    ];
    !of_a_step && PASSING.iter().any(|passing| message.contains(passing))
}

/// Returns whether the connection to the daemon broke off. The daemon's own answers have no error of this side as their source.
#[must_use]
pub fn is_cut_off(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Returns the lines that the error's details name, as buildx shows them: each source once. Returns `None` if there are none.
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
    fn a_full_disk_of_the_daemon_has_a_hint() {
        let status = tonic::Status::unknown("failed to solve: write /var/lib/docker/x: no space left on device");
        let error = failure(&status, None, None);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("disk of the Docker daemon")), "{error:?}");
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
