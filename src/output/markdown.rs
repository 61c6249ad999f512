//! Formats the run report as Markdown, for the summary page of a CI.

use std::fmt::Write as _;

use super::mounts::mounts_line;
use super::run::{Outcome, RunReport, StepReport, StepStatus};
use super::summary::{first_changed, headline, phases};
use super::text::bytes_in_words;

/// The maximum length of an instruction or a reason, in characters.
const LONGEST: usize = 100;

/// Returns the results of the run, its steps and its transfers.
#[must_use]
pub fn markdown(report: &RunReport) -> String {
    let mut out = String::new();
    let name = report.images.first().and_then(|image| image.tags.first()).map_or("image", |tag| &tag.reference);
    // Writing to a string never fails.
    let _ = writeln!(out, "### {}\n", escaped(name));
    match headline(report) {
        Some(text) => {
            let _ = writeln!(out, "{}\n", escaped(&capital(&text)));
        }
        None => out.push_str("Failed.\n\n"),
    }
    if let Some(step) = first_changed(report).filter(|_| report.outcome == Outcome::Success) {
        let _ = writeln!(out, "First changed step: {} — {}\n", code(&step.instruction), escaped(&shortened(&step.reason)));
    }
    if let Some(line) = mounts_line(&report.mounts) {
        let _ = writeln!(out, "{}\n", escaped(&capital(&line)));
    }
    if let Some(image) = report.images.first().filter(|image| !image.digest.is_empty()) {
        let _ = writeln!(out, "Digest: {}\n", code(&image.digest));
    }
    let shown: Vec<&StepReport> = report.steps.iter().filter(|step| step.status != StepStatus::Skipped).collect();
    if !shown.is_empty() {
        out.push_str("| Line | Step | | Why |\n|---:|---|---|---|\n");
    }
    for step in shown {
        let became = match step.status {
            StepStatus::Hit => "cached",
            StepStatus::Miss => "ran",
            StepStatus::Uncacheable => "always runs",
            StepStatus::Skipped => "",
        };
        let line = if step.line > 0 { step.line.to_string() } else { String::new() };
        let why = escaped(&shortened(&step.reason));
        let _ = writeln!(out, "| {line} | {} | {became} | {why} |", code(&step.instruction));
    }
    out.push_str("\n| | Seconds | Moved |\n|---|---:|---:|\n");
    for phase in phases(report) {
        let seconds = phase.seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default();
        let moved = if phase.bytes > 0 { bytes_in_words(phase.bytes) } else { String::new() };
        let _ = writeln!(out, "| {} | {seconds} | {moved} |", phase.name);
    }
    let _ = writeln!(out, "| total | {:.1} | |", report.seconds.total);
    for advice in &report.advice {
        let at = if advice.line > 0 { format!("{}:{}: ", advice.file, advice.line) } else { String::new() };
        let _ = writeln!(out, "\n> {}{}", escaped(&at), escaped(&advice.text));
    }
    for warning in &report.cache.warnings {
        let _ = writeln!(out, "\n> Warning: {}", escaped(warning));
    }
    out
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Returns one line, cut to [`LONGEST`] characters.
fn shortened(text: &str) -> String {
    let line = super::text::title(text);
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Escapes a text for Markdown, including its tables.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in super::text::clean(text).chars() {
        match c {
            '\n' => out.push(' '),
            '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '|' | '#' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// Formats an instruction as code. It replaces backticks, which would end the code, and bars, which would end a table's cell.
fn code(text: &str) -> String {
    format!("`{}`", shortened(text).replace('`', "'").replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::run::{AdviceReport, ByteCounts, ImageReport, LayerCounts, TagReport, Tier};

    #[test]
    fn a_run_as_a_page() {
        let step = |line, instruction: &str, status, reason: &str| StepReport {
            line,
            instruction: instruction.to_owned(),
            status,
            reason: reason.to_owned(),
            ..StepReport::default()
        };
        let mut report = RunReport { outcome: Outcome::Success, tier: Tier::Partial, ..RunReport::default() };
        report.steps = vec![
            step(2, "RUN apt-get update | tee /log", StepStatus::Hit, ""),
            step(3, "COPY . /app", StepStatus::Miss, "src/a_b.py changed"),
            step(4, "RUN <<EOF\necho `x`\nEOF", StepStatus::Miss, "it builds on `COPY . /app`, which changed"),
            step(9, "RUN nobody", StepStatus::Skipped, ""),
        ];
        report.images = vec![ImageReport {
            digest: "sha256:d1".into(),
            tags: vec![TagReport { reference: "r.example.com/app:1".into(), pushed: true }],
            ..ImageReport::default()
        }];
        report.layers = LayerCounts { pushed: 2, already_in_registry: 5, ..LayerCounts::default() };
        report.bytes = ByteCounts { pushed: 3_100_000, restored: 12_000_000, ..ByteCounts::default() };
        (report.seconds.plan, report.seconds.build, report.seconds.push, report.seconds.total) = (0.2, 4.05, 0.9, 5.31);
        report.advice = vec![AdviceReport { file: "Dockerfile".into(), line: 3, seconds: None, text: "copy it <later>".into() }];
        insta::assert_snapshot!(markdown(&report));
    }

    #[test]
    fn a_failure_says_so() {
        assert!(markdown(&RunReport::default()).contains("Failed."));
    }
}
