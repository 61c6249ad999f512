//! Finds commands that download or compile again what a cache mount would keep, and writes the line that they should have.

use bollard_buildkit_proto::pb::{self, MountType};

use super::{Advice, Build, Step, WORTH, lasted, listed, named};
use crate::graph::{Input, Op};
use crate::plan::inputs::StepInputs;
use crate::plan::tools::{Output, call};

/// Finds commands that ran, download or compile, and have no cache mount.
pub(super) fn downloads(build: &Build<'_>) -> Vec<Advice> {
    build.steps.iter().filter(|step| step.runs).filter_map(|step| of_command(build, step)).collect()
}

fn of_command(build: &Build<'_>, step: &Step<'_>) -> Option<Advice> {
    let exec = step.exec()?;
    if exec.mounts.iter().any(|mount| mount.mount_type() == MountType::Cache) {
        return None;
    }
    let meta = exec.meta.as_ref()?;
    let command = step.command()?;
    let call = call(&command)?;
    let seconds = step.now.seconds.filter(|seconds| *seconds >= WORTH)?;
    let caches = call.tool.caches.iter().filter(|cache| !cache.only_automatic);
    let caches = caches.filter_map(|cache| Some((cache.folder(&step.now.env, &meta.user)?, cache.options())));
    let mut mounts: Vec<String> = caches.map(|(folder, options)| mount(&folder, options)).collect();
    let output = call.tool.output.as_ref().filter(|_| !call.installs).and_then(|output| compiled(build, step, output));
    mounts.extend(output.as_ref().map(|(folder, _)| mount(folder, ",sharing=locked")));
    if mounts.is_empty() {
        return None;
    }
    let (mut saves, mut instead) = (String::new(), String::new());
    if let Some((_, copied)) = output {
        saves = format!(" && mkdir -p /out && cp -r {} /out/", copied.join(" "));
        instead = format!(", and copy from /out/ instead of {}: a mount is no part of the stage", listed(&copied));
    }
    let text = format!(
        "{} ({}) starts from nothing each time it runs: write `RUN {} {}{saves}`{instead}",
        named(step.now),
        lasted(seconds),
        mounts.join(" "),
        written(step.now, call.keeps_none()),
    );
    let (file, line) = build.place(step.op);
    Some(Advice { file, line, seconds: Some(seconds), text })
}

/// Returns the command as in the Dockerfile, on one line and without an option.
fn written(step: &StepInputs, without: Option<&str>) -> String {
    let words = step.instruction.split_whitespace().skip(1).filter(|word| *word != "\\" && Some(*word) != without);
    words.collect::<Vec<_>>().join(" ")
}

fn mount(folder: &str, options: &str) -> String {
    format!("--mount=type=cache,target={folder}{options}")
}

/// Returns the directory that a command compiles into, and the paths in it that later steps copy. Returns `None` if there are none, or
/// a later command of the stage may use the directory: hakobi then does not know what a mount would hide.
fn compiled(build: &Build<'_>, step: &Step<'_>, output: &Output) -> Option<(String, Vec<String>)> {
    let meta = step.exec()?.meta.as_ref()?;
    let folder = step.now.env.get(output.variable).map_or(output.folder, String::as_str);
    let folder = match folder.starts_with('/') {
        true => folder.to_owned(),
        false => format!("{}/{folder}", meta.cwd.trim_end_matches('/')),
    };
    let lineage = |op: &Op| build.graph.lineage(&Input { step: op.digest.clone(), output: 0 });
    let is_on_it = |op: &Op| lineage(op).iter().any(|below| below.digest == step.op.digest);
    let has_later =
        build.steps.iter().any(|other| other.exec().is_some() && other.op.digest != step.op.digest && is_on_it(other.op));
    if has_later || step.now.instruction.contains('[') {
        return None;
    }
    let mut copied: Vec<String> = Vec::new();
    for other in &build.steps {
        let Some(files) = other.op.files() else { continue };
        for action in &files.actions {
            let Some(pb::file_action::Action::Copy(copy)) = &action.action else { continue };
            let state = usize::try_from(action.secondary_input).ok().and_then(|at| other.op.inputs.get(at));
            let is_below = copy.src.strip_prefix(&*folder).is_some_and(|rest| rest.starts_with('/'));
            let source = state.and_then(|state| build.graph.op(&state.step));
            if is_below && source.is_some_and(is_on_it) && !copied.contains(&copy.src) {
                copied.push(copy.src.clone());
            }
        }
    }
    (!copied.is_empty()).then_some((folder, copied))
}
