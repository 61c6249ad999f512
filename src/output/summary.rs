//! The last lines of a run: its time, and where the time went.

use super::mounts::mounts_line;
use super::run::{Outcome, RunReport, StepReport, StepStatus, Tier};
use super::terminal::to_stderr;
use super::text::{bytes_in_words, title};
use crate::domain::COPIED_AGAIN;
use crate::settings::ProgressMode;

/// The maximum length of a reason, in columns.
const LONGEST: usize = 160;

/// Returns the run's result in a sentence. Returns `None` after a failure, because the error text comes last and is enough.
#[must_use]
pub(super) fn headline(report: &RunReport) -> Option<String> {
    let seconds = format!("{:.1}s", report.seconds.total);
    match report.outcome {
        Outcome::Failure => return None,
        Outcome::Skipped => return Some(format!("skipped in {seconds}: no work was needed")),
        Outcome::Success => {}
    }
    let mut clauses = Vec::new();
    // A run without steps, such as a push, built nothing.
    let lead = match report.steps.is_empty() {
        true => format!("done in {seconds}"),
        false => {
            clauses.push(steps(report));
            format!("built in {seconds} ({})", report.tier.name())
        }
    };
    clauses.extend(pushed(report));
    clauses.extend(carried(report));
    clauses.extend(spared(report));
    Some(if clauses.is_empty() { lead } else { format!("{lead}: {}", clauses.join("; ")) })
}

/// Returns the headline, then one line each for the first changed step, the phases, the cache mounts and the image. It has no newline at its end.
/// Returns `None` after a failure.
#[must_use]
pub fn summary(report: &RunReport) -> Option<String> {
    let mut lines = vec![headline(report)?];
    if report.outcome == Outcome::Success && !report.steps.is_empty() {
        lines.extend(first_changed(report).map(|step| {
            let reason = super::text::truncate(&title(&step.reason), LONGEST).into_owned();
            format!("first changed step: {} ({reason})", super::text::truncate(&step.instruction, LONGEST))
        }));
        let mounts = mounts_line(&report.mounts);
        lines.push(phases(report).map(|phase| phase.to_string()).collect::<Vec<_>>().join(", "));
        lines.extend(mounts);
    }
    lines.extend(match report.images.as_slice() {
        [] => None,
        [image] if !image.digest.is_empty() => Some(format!("digest {}", image.digest)),
        [image] if !image.id.is_empty() => Some(format!("image {}", image.id)),
        [_] => None,
        images => Some(format!("{} images", images.len())),
    });
    lines.retain(|line| !line.is_empty());
    Some(lines.join("\n  "))
}

/// Returns the first step that ran. Returns `None` if the reason is unknown.
pub(super) fn first_changed(report: &RunReport) -> Option<&StepReport> {
    // In the first build every step is new, so that a changed step means nothing.
    if report.tier == Tier::Cold && report.last_cold.is_none() {
        return None;
    }
    let mut ran = report.steps.iter().filter(|step| matches!(step.status, StepStatus::Miss | StepStatus::Uncacheable));
    let open = ran.find(|step| step.reason != COPIED_AGAIN);
    open.filter(|step| !step.reason.is_empty())
}

/// A phase of a run.
pub(super) struct Phase {
    pub name: &'static str,
    /// The time in seconds. `None` if the phase took no time of its own, because it overlapped with another.
    pub seconds: Option<f64>,
    /// The bytes that it transferred.
    pub bytes: u64,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if let Some(seconds) = self.seconds {
            write!(f, " {seconds:.1}s")?;
        }
        if self.bytes > 0 { write!(f, " {}", bytes_in_words(self.bytes)) } else { Ok(()) }
    }
}

/// Returns the phases that took time or transferred bytes.
pub(super) fn phases(report: &RunReport) -> impl Iterator<Item = Phase> {
    let (seconds, bytes) = (report.seconds, report.bytes);
    let all = [
        ("plan", seconds.plan, 0),
        ("restore", seconds.restore, bytes.restored),
        ("build", seconds.build, bytes.context),
        ("push", seconds.push, bytes.pushed),
        ("save", seconds.save, bytes.saved),
    ];
    all.into_iter()
        .map(|(name, seconds, bytes)| Phase { name, seconds: (seconds >= 0.05).then_some(seconds), bytes })
        .filter(|phase| phase.seconds.is_some() || phase.bytes > 0)
}

/// Writes the summary to standard error, unless the mode is quiet or JSON.
pub fn print_summary(report: &RunReport, mode: ProgressMode) {
    if matches!(mode, ProgressMode::Quiet | ProgressMode::RawJson) {
        return;
    }
    if let Some(text) = summary(report) {
        to_stderr(&(text + "\n"));
    }
}

fn steps(report: &RunReport) -> String {
    // A skipped step is neither a hit nor a miss.
    let needed = report.steps.iter().filter(|step| step.status != StepStatus::Skipped).count();
    let cached = report.steps.iter().filter(|step| step.status == StepStatus::Hit).count();
    match (report.tier, cached) {
        (Tier::Unchanged, _) => "no step had to run".to_owned(),
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

/// Returns the transfers to and from the cache. Returns `None` if there were none.
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

/// Compares the time with that of the last cold build of this image. Returns `None` for a cold build, or if no such build is known.
fn spared(report: &RunReport) -> Option<String> {
    let cold = report.last_cold.as_ref().filter(|_| report.tier != Tier::Cold)?.seconds;
    let spared = cold - report.seconds.total;
    let than = if spared < 0.0 { "more" } else { "less" };
    Some(format!("{:.1}s {than} than its last cold build ({cold:.1}s)", spared.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::run::{ByteCounts, ColdReport, ImageReport, LayerCounts, StepReport, TagReport};

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
    fn what_a_build_cost() {
        let mut report = report();
        assert_eq!(summary(&report).unwrap(), "built in 12.3s (partial): 2 of 3 steps cached\n  digest sha256:d1");
        report.images[0].tags = vec![TagReport { reference: "r/app:1".into(), pushed: true }];
        report.layers = LayerCounts { pushed: 1, already_in_registry: 6, ..LayerCounts::default() };
        report.bytes = ByteCounts { pushed: 3_100_000, restored: 12_000_000, ..ByteCounts::default() };
        (report.seconds.plan, report.seconds.build, report.seconds.push) = (0.02, 4.06, 0.9);
        report.steps[2].instruction = "COPY . /app".into();
        report.steps[2].reason = "src/a.py changed".into();
        report.last_cold = Some(ColdReport { seconds: 80.3, ended: "2026-11-25T10:00:00Z".into() });
        assert_eq!(
            summary(&report).unwrap(),
            "built in 12.3s (partial): 2 of 3 steps cached; pushed 1 layer (3.1 MB), 6 already in the registry; \
             68.0s less than its last cold build (80.3s)\n  first changed step: COPY . /app (src/a.py changed)\n  \
             restore 12.0 MB, build 4.1s, push 0.9s 3.1 MB\n  digest sha256:d1"
        );
        report.last_cold = None;
        report.tier = Tier::Unchanged;
        (report.layers.pushed, report.bytes) = (0, ByteCounts::default());
        report.steps.truncate(2);
        assert_eq!(
            headline(&report).unwrap(),
            "built in 12.3s (unchanged): no step had to run; pushed no layer, 6 already in the registry"
        );
        report.outcome = Outcome::Skipped;
        assert_eq!(summary(&report).unwrap(), "skipped in 12.3s: no work was needed\n  digest sha256:d1");
        report.outcome = Outcome::Failure;
        assert_eq!(summary(&report), None);
    }

    #[test]
    fn a_copy_that_is_only_made_again_is_no_change() {
        let mut report = report();
        report.steps = vec![step(StepStatus::Miss), step(StepStatus::Miss)];
        report.steps[0].reason = COPIED_AGAIN.to_owned();
        report.steps[1].reason = "ENV MODE was fast, now slow".to_owned();
        assert_eq!(first_changed(&report).map(|step| &*step.reason), Some("ENV MODE was fast, now slow"));
    }

    #[test]
    fn without_steps_or_manifest() {
        let mut report = report();
        report.images[0].digest.clear();
        report.steps = vec![step(StepStatus::Miss)];
        assert_eq!(summary(&report).unwrap(), "built in 12.3s (partial): no step of 1 cached\n  image sha256:id");
        report.steps.clear();
        report.images.clear();
        assert_eq!(summary(&report).unwrap(), "done in 12.3s");
    }
}
