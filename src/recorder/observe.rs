//! Looks at all files that steps copied out of stages in a run.

use std::collections::HashMap;

use crate::domain::{CopiedContentKey, Digest, Selector};
use crate::error::Result;
use crate::executor::progress::SolveProgress;
use crate::executor::{inspect, substitutions};
use crate::graph::{CopySource, Input, Keys};
use crate::handover::PreparedImage;
use crate::recorder::recording::Recorder;

/// Looks at all files that steps copied out of stages in this run, and computes the keys with their content.
///
/// # Errors
/// If the daemon cannot send the files.
pub async fn observe(
    recorder: &Recorder<'_>,
    progress: &mut SolveProgress,
    stages: &[(Input, PreparedImage)],
) -> Result<ObservedContent> {
    let mut facts = recorder.plan.facts.clone();
    let mut found: HashMap<(Input, Vec<Selector>), Digest> = HashMap::new();
    loop {
        let keys = Keys::new(&recorder.plan.graph, &facts);
        let mut all = keys.copy_sources().iter();
        let Some(copied) =
            all.find(|copied| is_open(recorder, copied, progress) && !found.contains_key(&copied.place())).cloned()
        else {
            // Nobody knows when a step ran that BuildKit had in its own cache. Its content counts for this run's keys only.
            let keepable = |copied: &CopySource| {
                let is_kept = recorder.plan.decision.cached.contains_key(&copied.state) || is_source(recorder, &copied.state);
                is_kept || progress.ran.contains(&copied.state.step) || stages.iter().any(|(state, _)| *state == copied.state)
            };
            let keep = keys.copy_sources().iter().filter(|copied| keepable(copied));
            let keep = keep
                .filter_map(|copied| Some((copied.key.clone()?, (found.get(&copied.place())?.clone(), copied.state.clone()))));
            let copied = keep.collect();
            return Ok(ObservedContent { keys, copied });
        };
        let content = match inspect::observe(recorder.execution, recorder.plan, progress, &copied).await {
            Ok(content) => content,
            Err(error) => {
                let Some(why) = inspect::bypasses_pull_through(recorder.execution.daemon, progress).await else {
                    return Err(error);
                };
                progress.bypass_pull_through(&why, recorder.execution.daemon.context.events);
                // The other substitutions stay.
                progress.take_substitutions(substitutions::of_plan(recorder.execution, recorder.plan, None)?, recorder.plan);
                continue;
            }
        };
        facts.seen.insert(copied.place(), content.clone());
        found.insert(copied.place(), content);
    }
}

/// Returns whether a state is an image, a file or a repository at a known version: it is always the same for its key.
pub fn is_source(recorder: &Recorder<'_>, state: &Input) -> bool {
    recorder.plan.graph.op(&state.step).is_some_and(|op| op.inputs.is_empty())
}

/// Returns whether a step used these files in this run, and hakobi has no content of exactly this state.
pub fn is_open(recorder: &Recorder<'_>, copied: &CopySource, progress: &SolveProgress) -> bool {
    // hakobi looked at these files to plan, so their content counts in any case.
    if progress.trees.contains_key(&copied.place()) {
        return true;
    }
    let graph = &recorder.plan.graph;
    let used = graph.below(graph.result()).into_iter();
    if !used.filter(|op| progress.solved.contains(&op.digest)).any(|op| op.inputs.contains(&copied.state)) {
        return false;
    }
    let known = copied.key.as_ref().and_then(|key| recorder.plan.copied.get(key));
    match recorder.plan.decision.cached.get(&copied.state) {
        Some(record) => known.is_none_or(|copied| copied.chain.is_none() || copied.chain != record.chain()),
        None if is_source(recorder, &copied.state) => known.is_none(),
        None => true,
    }
}

/// The results of looking at files after a build.
pub struct ObservedContent {
    pub keys: Keys,
    /// The content of files that steps copied out of stages, with the state that has them.
    pub copied: HashMap<CopiedContentKey, (Digest, Input)>,
}
