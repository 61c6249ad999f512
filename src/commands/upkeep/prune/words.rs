//! What `prune` says.

use std::fmt::Write as _;

pub(super) use super::super::words::megabytes;
use super::super::words::{table, time};
use super::PrunePlan;
use crate::settings::PruneSettings;

/// Returns the text for standard output.
pub(super) fn text(plan: &PrunePlan, leftovers: u64, settings: &PruneSettings) -> String {
    let gone: Vec<_> = plan.builds.iter().filter_map(|(build, why)| Some((build, why.as_ref()?))).collect();
    let (now, later): (u64, u64) = (plan.blobs.values().sum(), plan.marked.values().sum());
    if settings.json {
        let builds: Vec<_> = gone
            .iter()
            .map(|(build, why)| {
                serde_json::json!({"scope": build.scope, "image": build.image, "last_used": build.last, "reason": why})
            })
            .collect();
        let out = serde_json::json!({
            "dry_run": settings.dry_run, "builds": plan.builds.len(), "removed_builds": builds, "removed_records": plan.records,
            "removed_blobs": plan.blobs.len(), "removed_bytes": now, "unused_blobs": plan.marked.len(), "unused_bytes": later,
            "needed_bytes": plan.needed, "removed_leftovers": leftovers, "unreadable_scopes": plan.unclear,
        });
        return serde_json::to_string_pretty(&out).unwrap_or_default() + "\n";
    }
    let mut text = String::new();
    if !gone.is_empty() {
        let mut rows = vec![["SCOPE", "IMAGE", "LAST USED", "WHY"].map(str::to_owned)];
        rows.extend(gone.iter().map(|(build, why)| {
            let image = if build.image.is_empty() { "(all)".to_owned() } else { build.image.clone() };
            [build.scope.clone(), image, time(build.last), (*why).clone()]
        }));
        text.push_str(&table(&rows));
    }
    let removed = if settings.dry_run { "would remove" } else { "removed" };
    let _ = writeln!(text, "{removed} {} of {} builds with {} records", gone.len(), plan.builds.len(), plan.records);
    let _ = writeln!(text, "{removed} {} blobs with {}; {} are needed", plan.blobs.len(), megabytes(now), megabytes(plan.needed));
    if !plan.marked.is_empty() {
        let hours = settings.grace.as_secs().div_ceil(3600);
        let _ = writeln!(
            text,
            "{} blobs with {} are not needed either; `hakobi cache prune` removes them if that is so for {hours} hours",
            plan.marked.len(),
            megabytes(later)
        );
    }
    for scope in &plan.unclear {
        let _ = writeln!(
            text,
            "kept all of scope {scope}: what a build used there cannot be read; `hakobi cache verify --repair` removes damaged lists"
        );
    }
    if leftovers > 0 {
        let _ = writeln!(text, "removed {leftovers} writes that were broken off");
    }
    text
}
