//! What became of every step of the Dockerfile, read off the status stream: what BuildKit decided, not what was planned.

use std::collections::HashMap;

use super::name::StepName;
use super::run::{StepReport, StepStatus, Tier};
use crate::event::{Event, Status, Time, Vertex};

/// Where a step stands in its Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// What the plan says of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// Its key; empty where it has none.
    pub key: String,
    /// Why it is no hit; empty where it is one.
    pub reason: String,
    /// Whether it can be none.
    pub uncacheable: bool,
}

/// A step of the Dockerfile as it went.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Its vertexes: one, or one per solve where the graph was solved in rounds.
    pub digests: Vec<String>,
    /// `linux/arm64`; empty where one platform is built.
    pub platform: String,
    /// Its stage.
    pub stage: String,
    /// Its number in the stage, from 1; `FROM` is 1.
    pub number: u32,
    /// `COPY . /app`.
    pub instruction: String,
    /// Hit if BuildKit had its result, miss if it ran, skipped if no one asked for it.
    pub status: StepStatus,
    /// Seconds that it ran.
    pub seconds: f64,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    name: Option<StepName>,
    runs: Vec<(Time, Option<Time>)>,
    cached: bool,
    error: Option<String>,
}

/// Listens to the events and remembers what became of the steps.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    order: Vec<String>,
    seen: HashMap<String, Seen>,
}

impl Steps {
    /// Takes in an event.
    pub fn listen(&mut self, event: &Event) {
        if let Event::Status(status) = event {
            self.status(status);
        }
    }

    fn status(&mut self, status: &Status) {
        for vertex in &status.vertexes {
            self.vertex(vertex);
        }
        for part in status.statuses.iter().filter(|part| part.is_pull()) {
            if let Some(seen) = self.seen.get_mut(&part.vertex) {
                seen.cached = true;
            }
        }
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let Some(name) = StepName::parse(&vertex.name).filter(|name| !name.is_base()) else { return };
        if !self.seen.contains_key(&vertex.digest) {
            self.order.push(vertex.digest.clone());
        }
        let seen = self.seen.entry(vertex.digest.clone()).or_default();
        seen.name = Some(name);
        let Some(started) = vertex.started else { return };
        match seen.runs.iter_mut().find(|(start, _)| *start == started) {
            Some(run) => run.1 = vertex.completed,
            None => seen.runs.push((started, vertex.completed)),
        }
        // Once found, always found: when its layers are brought here it shows as run. What ran in an earlier solve of this build is
        // found in the next one, and ran all the same.
        let ran_before = seen.runs.iter().any(|(start, end)| *start != started && end.is_some());
        seen.cached |= vertex.cached && !ran_before;
        seen.error = (!vertex.error.is_empty()).then(|| vertex.error.clone());
    }

    /// The steps, stage by stage in the order they became known. `FROM` is none of them: its image is found, not made.
    #[must_use]
    pub fn results(&self) -> Vec<StepResult> {
        let mut results: Vec<StepResult> = Vec::new();
        for digest in &self.order {
            let Some(seen) = self.seen.get(digest) else { continue };
            let Some(name) = &seen.name else { continue };
            let one = StepResult {
                digests: vec![digest.clone()],
                platform: name.platform.clone(),
                stage: name.stage.clone(),
                number: name.number,
                instruction: name.instruction.clone(),
                status: seen.status(),
                seconds: if seen.cached { 0.0 } else { seen.seconds() },
                error: seen.error.clone(),
            };
            let same = |known: &&mut StepResult| {
                (&known.platform, &known.stage, known.number, &known.instruction)
                    == (&one.platform, &one.stage, one.number, &one.instruction)
            };
            match results.iter_mut().find(same) {
                Some(known) => known.merge(one),
                None => results.push(one),
            }
        }
        let mut stages: Vec<(String, String)> = Vec::new();
        for step in &results {
            if !stages.contains(&(step.platform.clone(), step.stage.clone())) {
                stages.push((step.platform.clone(), step.stage.clone()));
            }
        }
        let place = |step: &StepResult| stages.iter().position(|(p, s)| (p, s) == (&step.platform, &step.stage));
        results.sort_by_key(|step| (place(step), step.number));
        results
    }

    /// The same as the run report lists them. `locations` are by vertex, from the graph's source map; without one the
    /// line is 0. Reasons and keys are the plan's, by vertex too.
    #[must_use]
    pub fn reports(&self, locations: Option<&HashMap<String, Location>>, notes: &HashMap<String, Note>) -> Vec<StepReport> {
        let line = |step: &StepResult| {
            let location = step.digests.iter().find_map(|digest| locations?.get(digest));
            location.map_or(0, |location| location.line)
        };
        let results = self.results();
        results
            .into_iter()
            .map(|step| {
                let note = step.digests.iter().find_map(|digest| notes.get(digest)).cloned().unwrap_or_default();
                let uncacheable = note.uncacheable && step.status == StepStatus::Miss;
                StepReport {
                    line: line(&step),
                    stage: step.stage,
                    instruction: step.instruction,
                    status: if uncacheable { StepStatus::Uncacheable } else { step.status },
                    // What BuildKit found in its own cache needs no reason.
                    reason: if step.status == StepStatus::Miss { note.reason } else { String::new() },
                    key: note.key,
                }
            })
            .collect()
    }

    /// `cold` where no step was cached, `partial` where one was: what BuildKit's own cache amounts to.
    #[must_use]
    pub fn tier(&self) -> Tier {
        let hit = self.results().iter().any(|step| step.status == StepStatus::Hit);
        if hit { Tier::Partial } else { Tier::Cold }
    }
}

impl Seen {
    fn status(&self) -> StepStatus {
        match (self.runs.is_empty(), self.cached) {
            (true, _) => StepStatus::Skipped,
            (false, true) => StepStatus::Hit,
            (false, false) => StepStatus::Miss,
        }
    }

    // The runs of one vertex follow each other.
    fn seconds(&self) -> f64 {
        // Not `sum`: of nothing it is -0.0.
        self.runs.iter().filter_map(|(start, end)| Some((*end)?.seconds_since(*start))).fold(0.0, |all, one| all + one)
    }
}

impl StepResult {
    /// A step that ran in any round is a miss, though the next round finds it cached.
    fn merge(&mut self, other: Self) {
        let rank = |status| match status {
            StepStatus::Miss => 2,
            StepStatus::Hit => 1,
            StepStatus::Skipped | StepStatus::Uncacheable => 0,
        };
        if rank(other.status) > rank(self.status) {
            self.status = other.status;
        }
        self.digests.extend(other.digests);
        self.seconds += other.seconds;
        self.error = other.error.or(self.error.take());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, part};
    use super::*;

    fn collect(script: &Script) -> Steps {
        let mut steps = Steps::default();
        for (_, event) in script.events() {
            steps.listen(event);
        }
        steps
    }

    fn brief(steps: &Steps) -> Vec<String> {
        steps
            .results()
            .iter()
            .map(|s| format!("{} {} {} {:?} {:.1}", s.stage, s.number, s.instruction, s.status, s.seconds))
            .collect()
    }

    #[test]
    fn every_dockerfile_step_and_nothing_else() {
        let mut script = Script::new();
        script.known("c", "[build 3/3] RUN make");
        script.known("d", "[build 2/3] COPY . .");
        script.run("a", "[internal] load build context", 0.0, 0.5);
        script.progress(0.2, part("a", "transferring context:", 300, 0, Some(0.4)));
        script.progress(0.4, part("a", "transferring context:", 700, 0, Some(0.4)));
        script.run("b", "[build 1/3] FROM docker.io/library/alpine", 0.0, 0.1);
        script.cached("d", "[build 2/3] COPY . .", 0.5);
        script.known("e", "[stage-1 2/2] COPY --from=build x y");
        script.run("c", "[build 3/3] RUN make", 0.5, 2.5);
        script.run("z", "exporting to image", 3.0, 3.5);
        let steps = collect(&script);
        assert_eq!(
            brief(&steps),
            ["build 2 COPY . . Hit 0.0", "build 3 RUN make Miss 2.0", "stage-1 2 COPY --from=build x y Skipped 0.0"]
        );
        assert_eq!(steps.tier(), Tier::Partial);
        let map = HashMap::from([("c".to_owned(), Location { file: "Dockerfile".into(), line: 7 })]);
        let lines: Vec<u32> = steps.reports(Some(&map), &HashMap::new()).iter().map(|step| step.line).collect();
        assert_eq!(lines, [0, 7, 0]);
    }

    #[test]
    fn a_step_that_ran_in_one_round_is_a_miss() {
        let mut script = Script::new();
        script.run("a", "[2/2] RUN make", 0.0, 2.0);
        script.cached("b", "[2/2] RUN make", 3.0);
        let steps = collect(&script);
        assert_eq!(brief(&steps), ["stage-0 2 RUN make Miss 2.0"]);
        assert_eq!(steps.results()[0].digests, ["a", "b"]);
        assert_eq!(steps.tier(), Tier::Cold);
    }
}
