//! Finds commands that download again what a cache mount would keep on a long-lived daemon.

use bollard_buildkit_proto::pb::MountType;

use super::installs::call;
use super::{Advice, Build, Step, WORTH, lasted, named};

/// Finds commands that ran, download, and have no cache mount.
pub(super) fn downloads(build: &Build<'_>) -> Vec<Advice> {
    build.steps.iter().filter(|step| step.runs).filter_map(|step| of_command(build, step)).collect()
}

fn of_command(build: &Build<'_>, step: &Step<'_>) -> Option<Advice> {
    let exec = step.exec()?;
    if exec.mounts.iter().any(|mount| mount.mount_type() == MountType::Cache) {
        return None;
    }
    let command = step.command()?;
    let call = call(&command)?;
    let seconds = step.now.seconds.filter(|seconds| *seconds >= WORTH)?;
    let user = exec.meta.as_ref().map(|meta| meta.user.clone()).unwrap_or_default();
    let folder = call.folder(&step.now.env, &user)?;
    let without = call.keeps_none().map(|option| format!(" without `{option}`")).unwrap_or_default();
    let text = format!(
        "{} ({}) downloads everything again each time it runs: use `RUN --mount=type=cache,target={folder}{}`{without} to reuse the \
         downloads on a daemon that survives the job",
        named(step.now),
        lasted(seconds),
        call.manager.mount_options
    );
    let (file, line) = build.place(step.op);
    Some(Advice { file, line, seconds: Some(seconds), text })
}
