//! Finds a copy of the whole context above a command that needs only a few of its files.

use super::{Advice, Build, Step, WORTH, lasted, listed, named};
use crate::graph::{Input, InputDependency, input_dependencies};
use crate::plan::selection;
use crate::plan::tools::{Call, call};

/// Finds copies of everything above commands that install a project's dependencies.
pub(super) fn copies_before_installs(build: &Build<'_>) -> Vec<Advice> {
    build.steps.iter().filter_map(|step| of_install(build, step)).collect()
}

fn of_install(build: &Build<'_>, step: &Step<'_>) -> Option<Advice> {
    let command = step.command()?;
    let call = call(&command).filter(|call| call.installs)?;
    let seconds = step.now.seconds.filter(|seconds| *seconds >= WORTH)?;
    let chain = build.graph.chain(&Input { step: step.op.digest.clone(), output: 0 });
    let above = chain.iter().filter(|one| one.digest != step.op.digest).filter_map(|one| build.by_digest.get(&one.digest));
    let copy = above.map(|place| &build.steps[*place]).find(|step| copies_everything(build, step))?;
    let (file, line) = build.place(copy.op);
    let (_, run_line) = build.place(step.op);
    let instead = match manifests(&call, copy) {
        files if !files.is_empty() => {
            format!("copy only {} before the RUN, and everything else after it", listed(&files))
        }
        _ if call.tool.of_system => "move the RUN above the COPY".to_owned(),
        _ => return None,
    };
    let text = format!(
        "{} is above {} (line {run_line}, {} when last measured), so the RUN runs again for every changed file: {instead}",
        named(copy.now),
        named(step.now),
        lasted(seconds)
    );
    Some(Advice { file, line, seconds: Some(seconds), text })
}

/// Returns whether a step copies a whole directory of the build context.
pub(super) fn copies_everything(build: &Build<'_>, step: &Step<'_>) -> bool {
    if step.exec().is_some() {
        return false;
    }
    step.op.inputs.iter().zip(input_dependencies(step.op)).any(|(input, used)| {
        let InputDependency::Content(selectors) = used else { return false };
        let local = build.graph.op(&input.step).and_then(selection).is_some();
        local && selectors.iter().any(|one| matches!(one.path.trim_matches('/'), "" | ".") && one.include.is_empty())
    })
}

/// Returns the copied files that the call reads. Returns none if the call needs more than these.
fn manifests(call: &Call<'_>, copy: &Step<'_>) -> Vec<String> {
    // `pip install .` installs the project itself.
    if call.words.iter().any(|word| matches!(*word, "." | "./" | "-e" | "--editable")) {
        return Vec::new();
    }
    let is_there = |name: &str| copy.now.files.contains_key(name);
    let after = |option: &str| call.words.iter().skip_while(move |word| **word != option).nth(1);
    let named = ["-r", "--requirement"].iter().filter_map(|option| after(option)).map(|word| word.trim_start_matches("./"));
    let mut files: Vec<String> = named.filter(|name| is_there(name)).map(ToOwned::to_owned).collect();
    if files.is_empty() {
        files = call.tool.manifests.iter().filter(|name| is_there(name)).map(|name| (*name).to_owned()).collect();
    }
    files
}
