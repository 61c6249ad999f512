//! The display's output: standard error, or a test's writer.

use std::io::{self, IsTerminal as _, Write};

use super::frame::Size;
use super::text::harmless;
use crate::event::Time;
use crate::redact::redacted;

/// A writer with its size, its clock and its kind.
pub struct Terminal {
    writer: Box<dyn Write + Send>,
    size: Box<dyn Fn() -> Size + Send>,
    clock: Box<dyn Fn() -> Time + Send>,
    /// Whether it is an interactive terminal, which `auto` checks.
    pub(super) is_live: bool,
}

impl Terminal {
    /// Returns standard error.
    #[must_use]
    pub fn stderr() -> Self {
        let term = console::Term::stderr();
        let size = move || match term.size_checked() {
            Some((rows, columns)) if rows > 0 && columns > 0 => Size { width: columns.into(), height: rows.into() },
            // The terminal of some CI systems reports no size.
            _ => Size { width: 80, height: 24 },
        };
        Self::new(io::stderr(), size, Time::now, io::stderr().is_terminal())
    }

    /// Returns a writer with its own size and clock.
    #[must_use]
    pub fn new(
        writer: impl Write + Send + 'static,
        size: impl Fn() -> Size + Send + 'static,
        clock: impl Fn() -> Time + Send + 'static,
        is_live: bool,
    ) -> Self {
        Self { writer: Box::new(writer), size: Box::new(size), clock: Box::new(clock), is_live }
    }

    pub(super) fn size(&self) -> Size {
        (self.size)()
    }

    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    /// Writes a text at once. Errors are ignored: a closed pipe must not fail a build.
    pub(super) fn write(&mut self, text: &str) {
        if !text.is_empty() {
            let _ = self.writer.write_all(harmless(text).as_bytes()).and_then(|()| self.writer.flush());
        }
    }
}

/// Writes text outside the display to standard error: an error, the summary.
pub fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(harmless(&redacted(text)).as_bytes());
}

/// Writes an answer for scripts to standard output.
///
/// # Errors
/// If the write fails, because a script must not miss its answer.
pub fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(redacted(text).as_bytes())?;
    out.flush()
}
