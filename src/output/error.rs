//! Formats errors and warnings for the user.

use super::text::{Paint, clean, harmless, message};
use crate::error::Error;
use crate::redact::redact;

/// Returns the error's text, with a newline at its end: `error: …`, the causes, the hint. The message may have several lines,
/// such as the daemon's excerpts of a Dockerfile.
#[must_use]
pub fn error(error: &Error, color: bool) -> String {
    let paint = Paint(color);
    let mut out = format!("{}: {}\n", paint.bold("31", "error"), clean(error.message()).trim_end());
    for cause in error.causes() {
        out.push_str(&format!("  {}: {}\n", paint.bold("31", "caused by"), message(cause)));
    }
    if let Some(hint) = error.hint_text() {
        out.push_str(&format!("  {}: {}\n", paint.bold("36", "hint"), message(hint)));
    }
    redact(&mut out);
    harmless(&out).into_owned()
}

/// Returns the text of a warning for the time after the display ended, with a newline at its end.
#[must_use]
pub fn warning(text: &str, color: bool) -> String {
    harmless(&format!("{}: {}\n", Paint(color).bold("33", "warning"), message(text))).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hint() {
        let cause = std::io::Error::other("connection refused\nby the host");
        let failure = Error::push("cannot push to r.example.com/app").because(&cause).hint("is the registry up?\nTry again.");
        insta::assert_snapshot!(error(&failure, false), @r"
        error: cannot push to r.example.com/app
          caused by: connection refused
            by the host
          hint: is the registry up?
            Try again.
        ");
    }

    #[test]
    fn the_daemons_excerpt_is_whole() {
        let message = "process \"/bin/sh -c false\" did not complete successfully: exit code: 1\n\n------\nDockerfile:2\n--------------------\n   1 |     FROM alpine\n   2 | >>> RUN\tfalse\n--------------------\n";
        insta::assert_snapshot!(error(&Error::build(message), false), @r#"
        error: process "/bin/sh -c false" did not complete successfully: exit code: 1

        ------
        Dockerfile:2
        --------------------
           1 |     FROM alpine
           2 | >>> RUN    false
        --------------------
        "#);
    }

    #[test]
    fn colour_only_where_asked_for() {
        let failure = Error::build("no \u{1b}[2J").hint("x");
        assert_eq!(error(&failure, true), "\u{1b}[1;31merror\u{1b}[0m: no\n  \u{1b}[1;36mhint\u{1b}[0m: x\n");
        assert_eq!(error(&failure, false), "error: no\n  hint: x\n");
    }
}
