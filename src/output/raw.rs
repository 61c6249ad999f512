//! `--progress rawjson`: each message of the status stream as a line of JSON, as buildx prints it.
//!
//! What hakobi says itself has no place in BuildKit's format. It is an object with the single key `hakobi`, which a reader
//! of `client.SolveStatus` takes for an empty message: `{"hakobi":{"note":"…"}}`, `{"hakobi":{"warning":"…"}}`,
//! `{"hakobi":{"debug":"…"}}`.

use crate::event::Event;

/// The event as a line with its newline.
pub(super) fn line(event: &Event) -> String {
    let json = match event {
        Event::Status(status) => serde_json::to_string(status).unwrap_or_default(),
        Event::Note(text) => serde_json::json!({"hakobi": {"note": text}}).to_string(),
        Event::Debug(text) => serde_json::json!({"hakobi": {"debug": text}}).to_string(),
        Event::Warning(text) => serde_json::json!({"hakobi": {"warning": text}}).to_string(),
    };
    if json.is_empty() { json } else { super::text::escaped_json(&json) + "\n" }
}
