//! When what went on in a run: a page for a browser, in one file that asks no network for anything.
//!
//! `rows` makes rows of the status stream, `page` a page of the rows.

mod page;
mod rows;

use std::path::Path;

use super::file::{self, cannot_write};
use super::run::RunReport;
use super::text;
use super::trace::Trace;
use crate::error::Result;
use crate::event::Time;

/// A sentence that was told in a run.
#[derive(Debug, Clone)]
pub(super) struct Remark {
    at: Time,
    text: String,
    is_warning: bool,
}

impl Remark {
    pub fn new(at: Time, text: &str, is_warning: bool) -> Self {
        Self { at, text: text::clean(text).trim_end().to_owned(), is_warning }
    }
}

/// What went on in a run.
#[derive(Debug, Default)]
pub struct Timeline {
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    trace: Trace,
    remarks: Vec<Remark>,
    began: Time,
    ended: Time,
}

impl Timeline {
    pub(super) fn new(mut trace: Trace, remarks: Vec<Remark>, began: Time, ended: Time) -> Self {
        trace.flush_open_lines(0.0, ended);
        Self { run: Some(Run { trace, remarks, began, ended }) }
    }

    /// The page, as HTML. `error` is what the run ended with, where it failed.
    #[must_use]
    pub fn page(&self, report: &RunReport, error: Option<&str>) -> String {
        match &self.run {
            Some(run) => page::page(run, report, error),
            None => String::new(),
        }
    }

    /// How long the run took, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.run.as_ref().map_or(0.0, |run| run.ended.seconds_since(run.began))
    }

    /// Writes the page, so that a reader sees all of it or none.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path, report: &RunReport, error: Option<&str>) -> Result<()> {
        file::replace(path, self.page(report, error).as_bytes()).map_err(|error| cannot_write(path, &error))
    }
}

#[cfg(test)]
mod tests;
