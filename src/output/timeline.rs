//! The timeline of a run, as a page for a browser. It is one file that loads nothing from the network.
//!
//! `rows` makes rows from the status stream, and `page` makes a page from the rows.

mod page;
mod rows;

use std::path::Path;

use super::file::{self, cannot_write};
use super::run::RunReport;
use super::text;
use super::trace::Trace;
use crate::error::Result;
use crate::event::Time;

/// A note or a warning of a run.
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

/// The recorded times and events of a run.
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

    /// Returns the page as HTML. `error` is the run's error, if it failed.
    #[must_use]
    pub fn page(&self, report: &RunReport, error: Option<&str>) -> String {
        match &self.run {
            Some(run) => page::page(run, report, error),
            None => String::new(),
        }
    }

    /// Returns the length of the run, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.run.as_ref().map_or(0.0, |run| run.ended.seconds_since(run.began))
    }

    /// Writes the page. A reader sees either the whole page or none of it.
    ///
    /// # Errors
    /// If the file is not writable.
    pub fn write(&self, path: &Path, report: &RunReport, error: Option<&str>) -> Result<()> {
        file::replace(path, self.page(report, error).as_bytes()).map_err(|error| cannot_write(path, &error))
    }
}

#[cfg(test)]
mod tests;
