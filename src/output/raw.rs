//! `--progress rawjson`: prints each message of the status stream as a line of JSON, like buildx.
//!
//! BuildKit's format has no field for hakobi's own messages. They are objects with the single key `hakobi`: `{"hakobi":{"note":"…"}}`,
//! `{"hakobi":{"warning":"…"}}`, `{"hakobi":{"debug":"…"}}`. A reader of `client.SolveStatus` sees an empty message.

use crate::event::Event;

/// Returns the event as a line with its newline.
pub(super) fn line(event: &Event) -> String {
    let json = match event {
        Event::Status(status) => serde_json::to_string(status).unwrap_or_default(),
        Event::Note(text) => serde_json::json!({"hakobi": {"note": text}}).to_string(),
        Event::Debug(text) => serde_json::json!({"hakobi": {"debug": text}}).to_string(),
        Event::Warning(text) => serde_json::json!({"hakobi": {"warning": text}}).to_string(),
    };
    if json.is_empty() { json } else { super::text::escaped_json(&json) + "\n" }
}
