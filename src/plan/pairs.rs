//! Finds the counterpart of each step in the last build, by its place in its stage and by its text in the Dockerfile, before
//! variables are replaced. A renamed stage is the same stage; a line with another variable value is the same line.

use std::collections::HashMap;

use super::inputs::{Inputs, StepInputs, explained};
use crate::domain::Digest;
use crate::graph::Graph;

/// Most steps of a stage that hakobi compares with each other: more than any Dockerfile has.
const MOST: usize = 1000;

/// The name of a stage and its steps, by their indexes in the build.
type Stage<'a> = (&'a str, Vec<usize>);

/// Finds the counterpart in `before` of each step of `now`: `None` for a new or changed line.
pub(super) fn pairs<'a>(before: &'a Inputs, now: &Inputs) -> Vec<Option<&'a StepInputs>> {
    let (then_stages, now_stages) = (stages(before), stages(now));
    let same_stages = stage_pairs(before, now, &then_stages, &now_stages);
    // `COPY --from=NAME` of a stage that has another name now.
    let names: HashMap<&str, &str> = same_stages
        .iter()
        .map(|(now, then)| (now_stages[*now].0, then_stages[*then].0))
        .filter(|(now, then)| now != then)
        .collect();
    let mut out = vec![None; now.steps.len()];
    for (stage, then) in same_stages {
        let (stage, then) = (&now_stages[stage].1, &then_stages[then].1);
        let same = |this: usize, that: usize| is_same(&now.steps[stage[this]], &before.steps[then[that]], &names);
        for (this, that) in common(stage.len(), then.len(), same) {
            out[stage[this]] = Some(&before.steps[then[that]]);
        }
    }
    out
}

fn stages(inputs: &Inputs) -> Vec<Stage<'_>> {
    let mut out: Vec<Stage<'_>> = Vec::new();
    for (place, step) in inputs.steps.iter().enumerate() {
        match out.iter_mut().find(|(name, _)| *name == step.stage) {
            Some((_, steps)) => steps.push(place),
            None => out.push((&step.stage, vec![place])),
        }
    }
    out
}

/// Returns the indexes of stages that are the same. Stages with the same name from the user come first, then stages with the most
/// lines in common.
fn stage_pairs(before: &Inputs, now: &Inputs, then_stages: &[Stage<'_>], now_stages: &[Stage<'_>]) -> Vec<(usize, usize)> {
    let nothing = HashMap::new();
    let mut all = Vec::new();
    for (this, (name, steps)) in now_stages.iter().enumerate() {
        for (that, (other, then)) in then_stages.iter().enumerate() {
            let same = |a: usize, b: usize| is_same(&now.steps[steps[a]], &before.steps[then[b]], &nothing);
            let lines = common(steps.len(), then.len(), same).len();
            let is_named = name == other && !is_numbered(name);
            all.push((is_named, lines, name == other, this.abs_diff(that), this, that));
        }
    }
    all.sort_by_key(|(is_named, lines, is_called, apart, ..)| (!is_named, usize::MAX - lines, !is_called, *apart));
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (.., this, that) in all {
        if !out.iter().any(|(a, b)| *a == this || *b == that) {
            out.push((this, that));
        }
    }
    out
}

/// Returns whether a stage has no name, or the frontend's: `stage-1`.
fn is_numbered(name: &str) -> bool {
    name.is_empty() || name.strip_prefix("stage-").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn is_same(now: &StepInputs, then: &StepInputs, names: &HashMap<&str, &str>) -> bool {
    let (this, that) = match now.written.is_empty() || then.written.is_empty() {
        // An older record, or a step that is in no file.
        true => (&now.instruction, &then.instruction),
        false => (&now.written, &then.written),
    };
    this == that || (!names.is_empty() && renamed(this, names) == *that)
}

/// Returns a line with the stages' names of the last build.
fn renamed(line: &str, names: &HashMap<&str, &str>) -> String {
    const FROM: &str = "from=";
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(FROM) {
        out.push_str(before);
        out.push_str(FROM);
        let end = after.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        out.push_str(names.get(&*name.to_ascii_lowercase()).copied().unwrap_or(name));
        rest = tail;
    }
    out + rest
}

/// Returns the longest common subsequence of two lists of these lengths, as pairs of indexes.
fn common(these: usize, those: usize, same: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let (these, those) = (these.min(MOST), those.min(MOST));
    // The number of pairs that are possible from these two places on.
    let mut most = vec![vec![0_u16; those + 1]; these + 1];
    for this in (0..these).rev() {
        for that in (0..those).rev() {
            most[this][that] = match same(this, that) {
                true => most[this + 1][that + 1] + 1,
                false => most[this + 1][that].max(most[this][that + 1]),
            };
        }
    }
    let (mut this, mut that) = (0, 0);
    let mut out = Vec::new();
    while this < these && that < those {
        if same(this, that) {
            out.push((this, that));
            (this, that) = (this + 1, that + 1);
        } else if most[this + 1][that] >= most[this][that + 1] {
            this += 1;
        } else {
            that += 1;
        }
    }
    out
}

/// Returns the counterpart of each of these steps in another build, or `None` for a step without one.
pub(super) fn paired<'a>(now: &Inputs, before: Option<&'a Inputs>) -> Vec<Option<&'a StepInputs>> {
    match before {
        Some(before) => pairs(before, now),
        None => vec![None; now.steps.len()],
    }
}

/// Sets how long the steps took that ran; the other steps get the time of the last build.
pub fn measure(now: &mut Inputs, graph: &Graph, ran: &HashMap<Digest, f64>, before: Option<&Inputs>) {
    let before = paired(now, before);
    for ((step, op), before) in now.steps.iter_mut().zip(explained(graph)).zip(before) {
        step.seconds = ran.get(&op.digest).copied().or_else(|| before?.seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(steps: &[(&str, &str)]) -> Inputs {
        let step = |(place, (stage, written)): (usize, &(&str, &str))| StepInputs {
            stage: (*stage).to_owned(),
            written: (*written).to_owned(),
            instruction: format!("{written} (expanded)"),
            key: Some(place.to_string()),
            ..StepInputs::default()
        };
        Inputs { steps: steps.iter().enumerate().map(step).collect() }
    }

    /// Returns the index of each step's counterpart.
    fn paired(before: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<Option<usize>> {
        let (before, now) = (build(before), build(now));
        pairs(&before, &now).into_iter().map(|step| step?.key.as_ref()?.parse().ok()).collect()
    }

    #[test]
    fn steps_are_paired_by_place_and_text() {
        let before = [("a", "RUN one"), ("a", "RUN two"), ("a", "RUN two"), ("b", "RUN two"), ("b", "COPY --from=a /x /")];
        assert_eq!(paired(&before, &before), [0, 1, 2, 3, 4].map(Some));
        // A new line and a deleted line do not affect the others.
        let now = [("a", "RUN one"), ("a", "RUN new"), ("a", "RUN two"), ("b", "RUN two"), ("b", "COPY --from=a /x /")];
        assert_eq!(paired(&before, &now), [Some(0), None, Some(1), Some(3), Some(4)]);
    }

    #[test]
    fn a_renamed_stage_is_the_same_stage() {
        let before =
            [("build", "RUN one"), ("build", "RUN two"), ("stage-1", "COPY --from=build /x /"), ("stage-1", "RUN three")];
        let now =
            [("compile", "RUN one"), ("compile", "RUN two"), ("stage-1", "COPY --from=compile /x /"), ("stage-1", "RUN three")];
        assert_eq!(paired(&before, &now), [0, 1, 2, 3].map(Some));
        // With another stage before them, unnamed stages get other numbers.
        let now = [
            ("new", "RUN new"),
            ("build", "RUN one"),
            ("build", "RUN two"),
            ("stage-2", "COPY --from=build /x /"),
            ("stage-2", "RUN three"),
        ];
        assert_eq!(paired(&before, &now), [None, Some(0), Some(1), Some(2), Some(3)]);
        // A single stage has no name until there is another.
        let alone = [("", "RUN one"), ("", "RUN three")];
        let now = [("build", "RUN two"), ("stage-1", "RUN one"), ("stage-1", "RUN three")];
        assert_eq!(paired(&alone, &now), [None, Some(0), Some(1)]);
        // The user's names distinguish two stages that swapped their lines.
        let before = [("x", "RUN one"), ("y", "RUN two")];
        assert_eq!(paired(&before, &[("x", "RUN two"), ("y", "RUN one")]), [None, None]);
    }

    #[test]
    fn an_older_record_has_only_what_was_put_in() {
        let mut before = build(&[("", "RUN one"), ("", "RUN two")]);
        before.steps.iter_mut().for_each(|step| step.written.clear());
        assert!(pairs(&before, &build(&[("", "RUN one"), ("", "RUN two")])).iter().all(Option::is_some));
    }
}
