//! The lines of the user's file that an error names, as an excerpt. They come from the details of the daemon's answer, or from a
//! check.

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::pb;
use prost::Message;
use serde::Deserialize;

/// The number of lines shown before and after those that an error names.
const AROUND: usize = 2;

/// BuildKit's `errdefs.Source`: the lines that an error names. A command over several lines has one range for each line.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Source {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<pb::SourceInfo>,
    #[prost(message, repeated, tag = "2")]
    pub(super) ranges: Vec<pb::Range>,
}

/// The same in Go's JSON, which omits zero values.
#[derive(Deserialize)]
struct JsonSource {
    info: JsonInfo,
    #[serde(default)]
    ranges: Vec<JsonRange>,
}

#[derive(Deserialize)]
struct JsonInfo {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct JsonRange {
    #[serde(default)]
    start: JsonPosition,
    #[serde(default)]
    end: JsonPosition,
}

#[derive(Deserialize, Default)]
struct JsonPosition {
    #[serde(default)]
    line: i32,
}

/// The part of a check's answer about an unreadable file.
#[derive(Deserialize)]
struct Check {
    #[serde(rename = "buildError")]
    broken: Option<Broken>,
    #[serde(default)]
    sources: Vec<JsonInfo>,
}

#[derive(Deserialize)]
struct Broken {
    message: String,
    #[serde(default)]
    location: Location,
}

#[derive(Deserialize, Default)]
struct Location {
    #[serde(rename = "sourceIndex", default)]
    source: i32,
    #[serde(default)]
    ranges: Vec<JsonRange>,
}

/// Reads the error that makes a Dockerfile unusable from the JSON of the frontend's check: its lines, then the message. Returns
/// `None` if there is no such error.
#[must_use]
pub fn check_failure(json: &str) -> Option<String> {
    let Check { broken, mut sources } = serde_json::from_str(json).ok()?;
    let Broken { message, location } = broken?;
    let place = usize::try_from(location.source).ok().filter(|place| *place < sources.len());
    let info = place.map(|place| sources.swap_remove(place));
    let source = info.and_then(|info| Source::from_json(JsonSource { info, ranges: location.ranges }));
    Some(source.and_then(|source| source.excerpt()).unwrap_or_default() + &message)
}

impl Source {
    /// Reads a source from an answer's details, in either of its encodings. Returns `None` if it is no source.
    pub(super) fn from_detail(detail: &Any) -> Option<Self> {
        if !detail.type_url.contains("errdefs.Source") {
            return None;
        }
        match detail.type_url.ends_with("+json") {
            true => Self::from_json(serde_json::from_slice(&detail.value).ok()?),
            false => Self::decode(&*detail.value).ok(),
        }
    }

    fn from_json(json: JsonSource) -> Option<Self> {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.decode(json.info.data).ok()?;
        let position = |at: JsonPosition| Some(pb::Position { line: at.line, character: 0 });
        let range = |range: JsonRange| pb::Range { start: position(range.start), end: position(range.end) };
        Some(Self {
            info: Some(pb::SourceInfo { filename: json.info.filename, data, ..pb::SourceInfo::default() }),
            ranges: json.ranges.into_iter().map(range).collect(),
        })
    }

    /// Returns the excerpt with all named lines marked. The file's name and the first line's number are above it. Returns `None` if
    /// the source names no line of the file.
    pub(super) fn excerpt(&self) -> Option<String> {
        let info = self.info.as_ref()?;
        let ranges: Vec<(usize, usize)> = self.ranges.iter().filter_map(lines_of).collect();
        let first = ranges.iter().map(|(first, _)| *first).min()?;
        let last = ranges.iter().map(|(_, last)| *last).max()?;
        let text = String::from_utf8_lossy(&info.data);
        if first > text.lines().count() {
            return None;
        }
        let mut out = format!("{}:{first}\n--------------------\n", info.filename);
        for (number, line) in (1..).zip(text.lines()) {
            if number + AROUND >= first && number <= last + AROUND {
                let is_meant = ranges.iter().any(|(first, last)| (*first..=*last).contains(&number));
                out.push_str(&format!("{number:4} | {} {line}\n", if is_meant { ">>>" } else { "   " }));
            }
        }
        out.push_str("--------------------\n");
        Some(out)
    }
}

/// Returns the first and the last line of a range, from 1. Returns `None` if the range is invalid.
fn lines_of(range: &pb::Range) -> Option<(usize, usize)> {
    let line = |position: &Option<pb::Position>| usize::try_from(position.as_ref()?.line).ok();
    let first = line(&range.start).filter(|first| *first > 0)?;
    Some((first, line(&range.end).unwrap_or(first).max(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, ranges: &[(i32, i32)]) -> Source {
        let position = |line| Some(pb::Position { line, character: 0 });
        Source {
            info: Some(pb::SourceInfo {
                filename: "Dockerfile".to_owned(),
                data: text.as_bytes().to_vec(),
                ..pb::SourceInfo::default()
            }),
            ranges: ranges.iter().map(|(start, end)| pb::Range { start: position(*start), end: position(*end) }).collect(),
        }
    }

    #[test]
    fn all_lines_of_a_command_are_marked() {
        let text = "FROM a\nRUN true\nRUN one && \\\n    two && \\\n    three\nENV X=1\nRUN x\nRUN y\n";
        insta::assert_snapshot!(source(text, &[(3, 3), (4, 4), (5, 5)]).excerpt().unwrap_or_default(), @r"
        Dockerfile:3
        --------------------
           1 |     FROM a
           2 |     RUN true
           3 | >>> RUN one && \
           4 | >>>     two && \
           5 | >>>     three
           6 |     ENV X=1
           7 |     RUN x
        --------------------
        ");
        // A heredoc is one range. Ranges may have any order.
        let heredoc = source("FROM a\nRUN <<EOF\nfalse\nEOF\n", &[(2, 4)]).excerpt().unwrap_or_default();
        assert_eq!(heredoc.matches(">>>").count(), 3, "{heredoc}");
        let turned = source(text, &[(5, 5), (3, 4)]).excerpt().unwrap_or_default();
        assert!(turned.starts_with("Dockerfile:3\n") && turned.matches(">>>").count() == 3, "{turned}");
    }

    #[test]
    fn what_names_no_line_is_not_shown() {
        for ranges in [&[][..], &[(0, 0)], &[(9, 9)], &[(-1, 4)]] {
            assert_eq!(source("FROM a\n", ranges).excerpt(), None, "{ranges:?}");
        }
        assert!(source("FROM a\n", &[(1, 99)]).excerpt().is_some_and(|text| text.contains("   1 | >>> FROM a\n---")));
    }

    #[test]
    fn a_check_tells_the_lines_too() {
        let json = r#"{"warnings":[],"sources":[{"filename":"Dockerfile","data":"RlJPTSBhClJVTk4gYgo="}],
            "buildError":{"message":"unknown instruction: RUNN","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}}}"#;
        let told = check_failure(json).unwrap_or_default();
        assert!(told.starts_with("Dockerfile:2\n") && told.ends_with("-\nunknown instruction: RUNN"), "{told}");
        let nowhere = r#"{"buildError":{"message":"no","location":{"sourceIndex":-1}}}"#;
        assert_eq!(check_failure(nowhere).as_deref(), Some("no"));
        assert_eq!(check_failure(r#"{"warnings":[]}"#), None);
    }
}
