//! The end of both displays: the failing step's log and the frontend's warnings.

use super::text::{Paint, log_seconds, title};
use super::trace::Trace;
use crate::event::BuildWarning;

/// Returns the logs of the failed steps, between rules. With `most`, each log has only its last `most` lines, because the earlier
/// ones are already printed above.
pub(super) fn failures(trace: &Trace, most: Option<usize>) -> String {
    let mut out = String::new();
    for (_, entry) in trace.started().filter(|(_, entry)| entry.is_failed()) {
        out.push_str(&format!("------\n > {}:\n", entry.title));
        let lines = entry.log.from(0);
        let skipped = most.map_or(0, |most| lines.len().saturating_sub(most));
        if skipped > 0 {
            out.push_str(&format!("… {skipped} more lines above\n"));
        }
        for line in &lines[skipped..] {
            out.push_str(&format!("{} {}\n", log_seconds(line.at), line.text));
        }
        out.push_str("------\n");
    }
    out
}

/// Returns the frontend's warnings.
pub(super) fn warnings(warnings: &[BuildWarning], paint: Paint) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let count = if warnings.len() == 1 { "1 warning".to_owned() } else { format!("{} warnings", warnings.len()) };
    let mut out = format!("\n {}\n", paint.warn(&format!("{count} about the Dockerfile:")));
    for warning in warnings {
        out.push_str(&format!(" - {}{}\n", place(warning), short(warning)));
        if !warning.url.is_empty() {
            out.push_str(&format!("   {}\n", title(&warning.url)));
        }
    }
    out
}

fn place(warning: &BuildWarning) -> String {
    match (warning.file.is_empty(), warning.line) {
        (true, _) => String::new(),
        (false, 0) => format!("{}: ", title(&warning.file)),
        (false, line) => format!("{}:{line}: ", title(&warning.file)),
    }
}

/// Returns a warning in one line.
pub(super) fn short(warning: &BuildWarning) -> String {
    title(&String::from_utf8_lossy(&warning.short))
}
