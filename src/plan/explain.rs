//! Explains in the user's words why a step runs: compares its inputs in the last build with its inputs now.
//!
//! An explanation may be incomplete; a key may not. If hakobi knows nothing of the last build, the explanation says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::decide::{Plan, Verdict};
use super::inputs::{Inputs, NAMED, StepInputs, Unsaved, explained, shortened};
use super::pairs::pairs;
use super::variables::{Setters, names, values};
use crate::domain::{COPIED_AGAIN, Digest};
use crate::graph::Graph;
use crate::hidden::{PLACEHOLDER, is_hidden, shown};

/// Returns the reason of each step that runs.
#[must_use]
pub fn explain(graph: &Graph, plan: &Plan, before: Option<&Inputs>, now: &Inputs) -> HashMap<Digest, String> {
    let mut reasons: HashMap<Digest, String> = HashMap::new();
    let changes =
        Changes { pairs: before.map(|before| pairs(before, now)), now, setters: graph.texts().map(Setters::parse).collect() };
    for (place, op) in explained(graph).into_iter().enumerate().take(now.steps.len()) {
        let reason = match plan.verdicts.get(&op.digest) {
            Some(Verdict::Uncacheable(why)) => why.clone(),
            Some(Verdict::Miss) if plan.old.contains_key(&op.digest) => aged(plan.old[&op.digest]),
            Some(Verdict::Miss) if plan.copied_again.contains(&op.digest) => COPIED_AGAIN.to_owned(),
            Some(Verdict::Miss) if op.ignores_cache => "forced by --no-cache".to_owned(),
            Some(Verdict::Miss) => changes.missed(place),
            _ => continue,
        };
        reasons.insert(op.digest.clone(), reason);
    }
    reasons
}

/// Returns the reason of a command that runs only because of its age.
fn aged(ran: Option<u64>) -> String {
    match ran.and_then(|ran| jiff::Timestamp::from_second(i64::try_from(ran).ok()?).ok()) {
        Some(ran) => format!("its result is older than --max-age: it ran on {}", ran.strftime("%Y-%m-%d %H:%M UTC")),
        None => "its result has an unknown age (--max-age)".to_owned(),
    }
}

/// The last build beside this one.
struct Changes<'a> {
    /// Each step's counterpart in the last build. `None` if nothing is known of the last build.
    pairs: Option<Vec<Option<&'a StepInputs>>>,
    now: &'a Inputs,
    /// The variable setters of each of the user's files.
    setters: Vec<Setters>,
}

impl Changes<'_> {
    /// Returns why a step has to run.
    fn missed(&self, place: usize) -> String {
        let step = &self.now.steps[place];
        let Some(pairs) = &self.pairs else {
            // The key depends on files of another step, which are known only after that step ran.
            let waits = step.on.last().and_then(|place| self.now.steps.get(*place)).filter(|_| step.key.is_none());
            return match waits {
                Some(on) => {
                    format!("no record of an earlier build, and it depends on the result of `{}`", shortened(&on.instruction))
                }
                None => "no record of an earlier build".to_owned(),
            };
        };
        let Some(last) = pairs[place] else { return "a new or changed line".to_owned() };
        let mut changed = self.put_in(last, step);
        changed.extend(files(&last.files, &step.files));
        changed
            .extend(self.variables(&last.env, &step.env).into_iter().filter(|told| !changed.contains(told)).collect::<Vec<_>>());
        for (image, digest) in &step.images {
            match last.images.get(image) {
                Some(other) if other == digest => {}
                Some(_) => changed.push(format!("new base image {image}@{}", digest.get(..19).unwrap_or(digest))),
                None => changed.push(format!("different base image: {image}")),
            }
        }
        for (name, what) in &step.remotes {
            if what.is_empty() {
                changed.push(name.clone());
            } else if last.remotes.get(name).is_some_and(|other| other != what) {
                changed.push(format!("{name} is now {}", what.get(..19).unwrap_or(what)));
            }
        }
        if changed.is_empty() && last.operation != step.operation {
            changed.push(match has_other_text(last, step) {
                // hakobi cannot determine the values, but it can give the names.
                true => match names(&step.written) {
                    names if names.is_empty() => "its options changed".to_owned(),
                    names => format!("the value of {} changed", self.all_named(&names)),
                },
                false => "its options changed".to_owned(),
            });
        }
        if !changed.is_empty() {
            return changed.join(", ");
        }
        let is_changed = |place: &&usize| {
            let Some(on) = self.now.steps.get(**place) else { return false };
            pairs[**place].is_none_or(|last| last.key != on.key || on.key.is_none())
        };
        let behind = step.on.iter().rev().find(is_changed).and_then(|place| self.now.steps.get(*place));
        let of_text = names(&step.written).into_iter().filter(|name| is_hidden(shown(name, name)));
        let of_env = step.env.iter().filter(|(_, value)| is_hidden(value)).map(|(name, _)| name.clone());
        let hidden: BTreeSet<String> = of_text.chain(of_env).collect();
        match (behind, last.key == step.key && step.key.is_some()) {
            (Some(on), _) => format!("it builds on `{}`, which changed", shortened(&on.instruction)),
            (None, false) if step.key.is_some() && last.key.is_some() && !hidden.is_empty() => {
                format!("{} changed (its value is hidden)", self.all_named(&hidden))
            }
            (None, true) => match last.unsaved {
                Some(Unsaved::InDaemon) => {
                    "the last build did not save its result: it came from the Docker daemon's own cache".to_owned()
                }
                Some(Unsaved::Other) => "the last build did not save its result".to_owned(),
                None => "the cached result has expired".to_owned(),
            },
            (None, false) => "a step that it depends on changed".to_owned(),
        }
    }

    /// Returns the variables of an instruction's text whose values differ from the last build.
    fn put_in(&self, last: &StepInputs, step: &StepInputs) -> Vec<String> {
        if !has_other_text(last, step) {
            return Vec::new();
        }
        let told = |step: &StepInputs| {
            let values = values(&step.written, &step.instruction).into_iter();
            values
                .map(|(name, value)| {
                    // Hidden values are compared, but never shown.
                    let value = if is_hidden(shown(&name, &value)) { format!("{PLACEHOLDER} {value}") } else { value };
                    (name, value)
                })
                .collect::<BTreeMap<_, _>>()
        };
        let (then, mut now) = (told(last), told(step));
        // Compare only variables that both builds have.
        now.retain(|name, _| then.contains_key(name));
        let then = then.into_iter().filter(|(name, _)| now.contains_key(name)).collect();
        self.variables(&then, &now)
    }

    fn named(&self, name: &str) -> String {
        let named = self.setters.iter().map(|setters| setters.named(name)).find(|named| named != name);
        named.unwrap_or_else(|| name.to_owned())
    }

    fn all_named(&self, names: &BTreeSet<String>) -> String {
        names.iter().map(|name| self.named(name)).collect::<Vec<_>>().join(" or ")
    }

    fn variables(&self, last: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
        let changed = now.iter().filter_map(|(name, value)| {
            let named = self.named(name);
            match last.get(name) {
                Some(other) if other == value => None,
                // Only the step's key shows whether it changed.
                Some(other) if is_hidden(value) && is_hidden(other) && (value == PLACEHOLDER || other == PLACEHOLDER) => None,
                Some(other) if is_hidden(value) || is_hidden(other) => Some(format!("{named} changed")),
                Some(other) => Some(format!("{named} was {}, now {}", shortened(other), shortened(value))),
                None if is_hidden(value) => Some(format!("{named} is now set")),
                None => Some(format!("{named} is now set to {}", shortened(value))),
            }
        });
        let gone =
            last.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{} is no longer set", self.named(name)));
        changed.chain(gone).collect()
    }
}

/// Returns whether the same line has another text now, because a variable has another value.
fn has_other_text(last: &StepInputs, step: &StepInputs) -> bool {
    !step.written.is_empty() && last.written == step.written && last.instruction != step.instruction
}

fn files(last: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let name = crate::domain::shown;
    let changed = now.iter().filter_map(|(path, content)| match last.get(path) {
        Some(other) if other == content => None,
        Some(_) => Some(format!("{} changed", name(path))),
        None => Some(format!("{} is new", name(path))),
    });
    let gone = last.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("{} was removed", name(path)));
    let all: Vec<String> = changed.chain(gone).collect();
    let more = all.len().saturating_sub(NAMED);
    let mut out: Vec<String> = all.into_iter().take(NAMED).collect();
    if more > 0 {
        out.push(format!("and {more} more files"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(instruction: &str, change: impl FnOnce(&mut StepInputs)) -> StepInputs {
        let mut step = StepInputs { instruction: instruction.to_owned(), key: Some("k".to_owned()), ..StepInputs::default() };
        change(&mut step);
        step
    }

    /// Returns why the step at a place has to run.
    fn why(place: usize, before: Option<&Inputs>, now: &Inputs) -> String {
        let setters = vec![Setters::parse("FROM x\nARG V\nENV W=x\n")];
        Changes { pairs: before.map(|before| pairs(before, now)), now, setters }.missed(place)
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reasons_name_what_changed() {
        let before = Inputs {
            steps: vec![
                step("COPY . /app", |step| step.files = map(&[("a", "1"), ("b", "1"), ("c", "1")])),
                step("RUN make", |step| step.env = map(&[("V", "1.2"), ("W", "x")])),
                step("RUN base", |step| step.images = map(&[("python:3", "sha256:0123456789abcdef0")])),
            ],
        };
        let now = |step: StepInputs| {
            let all = Inputs { steps: vec![step.clone()] };
            why(0, Some(&before), &all)
        };
        let files = |pairs: &[(&str, &str)]| now(step("COPY . /app", |step| step.files = map(pairs)));
        assert_eq!(files(&[("a", "1"), ("b", "2"), ("d", "1")]), "b changed, d is new, c was removed");
        assert_eq!(files(&[("e", "1"), ("f", "2"), ("g", "1")]), "e is new, f is new, g is new, and 3 more files");
        assert_eq!(
            now(step("RUN make", |step| step.env = map(&[("V", "1.3")]))),
            "ARG V was 1.2, now 1.3, ENV W is no longer set"
        );
        let secret = shown("TOKEN", "one");
        let all = Inputs::default();
        let told = Changes { pairs: None, now: &all, setters: Vec::new() };
        let told =
            told.variables(&map(&[("TOKEN", secret), ("X", "1")]), &map(&[("TOKEN", secret), ("KEY", secret), ("X", secret)]));
        assert_eq!(told, ["KEY is now set", "X changed"]);
        let moved = now(step("RUN base", |step| step.images = map(&[("python:3", "sha256:fedcba9876543210")])));
        assert_eq!(moved, "new base image python:3@sha256:fedcba987654");
        let elsewhere = |pairs: &[(&str, &str)]| now(step("RUN base", |step| step.remotes = map(pairs)));
        assert_eq!(elsewhere(&[("https://host/a: its server answers 503", "")]), "https://host/a: its server answers 503");
        assert_eq!(now(step("RUN other", |_| ())), "a new or changed line");
        assert_eq!(now(step("RUN make", |step| step.env = map(&[("V", "1.2"), ("W", "x")]))), "the cached result has expired");
        for (unsaved, reason) in [
            (Unsaved::InDaemon, "the last build did not save its result: it came from the Docker daemon's own cache"),
            (Unsaved::Other, "the last build did not save its result"),
        ] {
            let last = Inputs { steps: vec![step("RUN make", |step| step.unsaved = Some(unsaved))] };
            assert_eq!(why(0, Some(&last), &Inputs { steps: vec![step("RUN make", |_| ())] }), reason);
        }
        assert_eq!(why(0, None, &before), "no record of an earlier build");
    }

    #[test]
    fn what_lies_behind_a_change_says_behind_which() {
        let chain = |key: &str| Inputs {
            steps: vec![
                step("COPY a /", |step| step.key = Some(key.to_owned())),
                step("RUN make", |step| (step.key, step.on) = (Some(format!("{key}2")), vec![0])),
            ],
        };
        let now = chain("new");
        assert_eq!(why(1, Some(&chain("old")), &now), "it builds on `COPY a /`, which changed");
        let with_token = |key: &str| {
            let env = map(&[("TOKEN", shown("TOKEN", "x")), ("V", "1")]);
            Inputs { steps: vec![step("RUN make", |step| (step.key, step.env) = (Some(key.to_owned()), env))] }
        };
        assert_eq!(why(0, Some(&with_token("old")), &with_token("new")), "TOKEN changed (its value is hidden)");
        let mut waiting = now.clone();
        waiting.steps[1].key = None;
        assert_eq!(why(1, None, &waiting), "no record of an earlier build, and it depends on the result of `COPY a /`");
    }

    #[test]
    fn a_changed_variable_is_named_and_its_line_is_no_new_one() {
        let build = |version: &str, key: &str| Inputs {
            steps: vec![
                step(&format!("RUN get {version}"), |step| {
                    step.written = "RUN get $V".to_owned();
                    step.env = map(&[("V", version)]);
                    step.key = Some(key.to_owned());
                }),
                step(&format!("COPY app-{version} /app"), |step| {
                    step.written = "COPY app-${V} /app".to_owned();
                    step.operation = version.to_owned();
                    step.files = map(&[(&*format!("app-{version}"), "1")]);
                }),
                step(&format!("WORKDIR /srv/{version}{version}"), |step| {
                    step.written = "WORKDIR /srv/$V$V".to_owned();
                    step.operation = version.to_owned();
                }),
            ],
        };
        let (before, now) = (build("1.2", "a"), build("1.3", "b"));
        assert_eq!(why(0, Some(&before), &now), "ARG V was 1.2, now 1.3");
        assert_eq!(why(1, Some(&before), &now), "ARG V was 1.2, now 1.3, app-1.3 is new, app-1.2 was removed");
        assert_eq!(why(2, Some(&before), &now), "the value of ARG V changed");
        // A secret value in an instruction's text stays hidden too.
        let secret = |value: &str| Inputs {
            steps: vec![step(&format!("ADD http://x/{value} /"), |step| {
                (step.written, step.operation) = ("ADD http://x/$TOKEN /".to_owned(), value.to_owned());
            })],
        };
        assert_eq!(why(0, Some(&secret("one")), &secret("two")), "TOKEN changed");
    }

    #[test]
    fn a_renamed_stage_changes_no_line() {
        let build = |name: &str, file: &str| Inputs {
            steps: vec![
                step("COPY a /", |step| (step.stage, step.files) = (name.to_owned(), map(&[("a", file)]))),
                step("RUN make", |step| (step.stage, step.key, step.on) = (name.to_owned(), Some(file.to_owned()), vec![0])),
                step(&format!("COPY --from={name} /x /"), |step| {
                    (step.stage, step.key, step.on) = ("stage-1".to_owned(), Some(file.to_owned()), vec![1]);
                }),
            ],
        };
        let (before, now) = (build("build", "1"), build("compile", "2"));
        assert_eq!(why(0, Some(&before), &now), "a changed");
        assert_eq!(why(2, Some(&before), &now), "it builds on `RUN make`, which changed");
    }
}
