//! The last line of a run: what it cost, in a sentence.

use super::run::{Outcome, RunReport, StepStatus, Tier};
use super::terminal::to_stderr;
use super::text::bytes_in_words;
use crate::settings::ProgressMode;

/// The sentence, without a newline. None after a failure: the error says all, and comes last.
#[must_use]
pub fn summary(report: &RunReport) -> Option<String> {
    let seconds = format!("{:.1}s", report.seconds.total);
    match report.outcome {
        Outcome::Failure => return None,
        Outcome::Skipped => return Some(format!("skipped in {seconds}: nothing was to be done")),
        Outcome::Success => {}
    }
    let mut clauses = Vec::new();
    // A run without images is a push or the like: nothing was built.
    let verb = if report.steps.is_empty() { "done" } else { "built" };
    if !report.steps.is_empty() {
        clauses.push(steps(report));
    }
    clauses.extend(pushed(report));
    clauses.extend(carried(report));
    match report.images.as_slice() {
        [] => {}
        [image] if !image.digest.is_empty() => clauses.push(format!("digest {}", image.digest)),
        [image] => clauses.push(format!("image {}", image.id)),
        images => clauses.push(format!("{} images", images.len())),
    }
    let lead = format!("{verb} in {seconds}");
    Some(if clauses.is_empty() { lead } else { format!("{lead}: {}", clauses.join("; ")) })
}

/// Writes the sentence to standard error, where the mode shows such things.
pub fn print_summary(report: &RunReport, mode: ProgressMode) {
    if matches!(mode, ProgressMode::Quiet | ProgressMode::RawJson) {
        return;
    }
    if let Some(text) = summary(report) {
        to_stderr(&(text + "\n"));
    }
}

fn steps(report: &RunReport) -> String {
    // A step that no one needed says nothing about the cache.
    let needed = report.steps.iter().filter(|step| step.status != StepStatus::Skipped).count();
    let cached = report.steps.iter().filter(|step| step.status == StepStatus::Hit).count();
    match (report.tier, cached) {
        (Tier::Unchanged, _) => "nothing changed".to_owned(),
        (_, 0) => format!("no step of {needed} cached"),
        _ => format!("{cached} of {needed} steps cached"),
    }
}

fn pushed(report: &RunReport) -> Option<String> {
    let tags = report.images.iter().flat_map(|image| &image.tags).filter(|tag| tag.pushed).count();
    let layers = report.layers;
    if tags == 0 && layers.pushed == 0 {
        return None;
    }
    let mut clause = match layers.pushed {
        0 => "pushed no layer".to_owned(),
        1 => format!("pushed 1 layer ({})", bytes_in_words(report.bytes.pushed)),
        n => format!("pushed {n} layers ({})", bytes_in_words(report.bytes.pushed)),
    };
    if layers.already_in_registry > 0 {
        clause.push_str(&format!(", {} already in the registry", layers.already_in_registry));
    }
    Some(clause)
}

/// What went to and from the cache.
fn carried(report: &RunReport) -> Option<String> {
    let of = |verb: &str, layers: u64, bytes: u64| {
        let plural = if layers == 1 { "" } else { "s" };
        (layers > 0).then(|| format!("{verb} {layers} layer{plural} ({})", bytes_in_words(bytes)))
    };
    let both =
        [of("restored", report.layers.restored, report.bytes.restored), of("saved", report.layers.saved, report.bytes.saved)];
    let clauses: Vec<String> = both.into_iter().flatten().collect();
    (!clauses.is_empty()).then(|| clauses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::run::{ByteCounts, ImageReport, LayerCounts, StepReport, TagReport};
    use super::*;

    fn step(status: StepStatus) -> StepReport {
        StepReport { status, ..StepReport::default() }
    }

    fn report() -> RunReport {
        let mut report = RunReport { outcome: Outcome::Success, tier: Tier::Partial, ..RunReport::default() };
        report.seconds.total = 12.34;
        report.steps = vec![step(StepStatus::Hit), step(StepStatus::Hit), step(StepStatus::Miss), step(StepStatus::Skipped)];
        report.images = vec![ImageReport { id: "sha256:id".into(), digest: "sha256:d1".into(), ..ImageReport::default() }];
        report
    }

    #[test]
    fn sentences() {
        let mut report = report();
        assert_eq!(summary(&report).unwrap(), "built in 12.3s: 2 of 3 steps cached; digest sha256:d1");
        report.images[0].tags = vec![TagReport { reference: "r/app:1".into(), pushed: true }];
        report.layers = LayerCounts { pushed: 1, already_in_registry: 6, ..LayerCounts::default() };
        report.bytes = ByteCounts { pushed: 3_100_000, ..ByteCounts::default() };
        assert_eq!(
            summary(&report).unwrap(),
            "built in 12.3s: 2 of 3 steps cached; pushed 1 layer (3.1 MB), 6 already in the registry; digest sha256:d1"
        );
        report.tier = Tier::Unchanged;
        report.layers.pushed = 0;
        assert_eq!(
            summary(&report).unwrap(),
            "built in 12.3s: nothing changed; pushed no layer, 6 already in the registry; digest sha256:d1"
        );
        report.outcome = Outcome::Skipped;
        assert_eq!(summary(&report).unwrap(), "skipped in 12.3s: nothing was to be done");
        report.outcome = Outcome::Failure;
        assert_eq!(summary(&report), None);
    }

    #[test]
    fn without_steps_or_manifest() {
        let mut report = report();
        report.images[0].digest.clear();
        report.steps = vec![step(StepStatus::Miss)];
        assert_eq!(summary(&report).unwrap(), "built in 12.3s: no step of 1 cached; image sha256:id");
        report.steps.clear();
        report.images.clear();
        assert_eq!(summary(&report).unwrap(), "done in 12.3s");
    }
}
