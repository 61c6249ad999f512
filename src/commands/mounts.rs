//! The cache mounts of a build, in the form of the report.

use crate::executor::mount_outlook::MountOutlook;
use crate::output::{MountReport, MountSeconds};
use crate::recorder::mounts::{MountOutcome, UsedMounts};

/// Returns a mount that a build would use. The seconds are those of the last time.
pub fn planned(outlook: &MountOutlook) -> MountReport {
    let saved = outlook.carried.as_ref();
    let comes = saved.filter(|_| outlook.why_not.is_none());
    MountReport {
        id: outlook.id.clone(),
        brought_in: comes.map(|carried| carried.saved.bytes),
        saved: None,
        files: saved.map_or(0, |carried| carried.saved.files),
        reason: outlook.why_not.clone().unwrap_or_default(),
        seconds: MountSeconds { bring: comes.and_then(|carried| carried.cost.bring), save: None },
    }
}

/// Returns the mounts that a build has used.
pub fn used(mounts: &UsedMounts) -> Vec<MountReport> {
    let report = |outcome: MountOutcome| MountReport {
        id: outcome.id,
        brought_in: outcome.brought_in.map(|(bytes, _)| bytes),
        saved: outcome.saved.map(|saved| saved.uploaded),
        files: outcome.files,
        reason: outcome.why_not,
        seconds: MountSeconds {
            bring: outcome.brought_in.map(|(_, seconds)| seconds),
            save: outcome.saved.map(|saved| saved.seconds),
        },
    };
    mounts.outcomes().into_iter().map(report).collect()
}
