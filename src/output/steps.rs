//! Collects the result of every step of the Dockerfile from the status stream: what BuildKit decided, not what hakobi planned.

use std::collections::HashMap;

use super::name::StepName;
use super::run::{StepReport, StepStatus, Tier};
use crate::event::{Event, Status, Time, Vertex};

/// The location of a step in its Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The path of the file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// The plan's information about a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// The cache key. Empty if the step has none.
    pub key: String,
    /// The reason for a cache miss. Empty if the step is a hit.
    pub reason: String,
    /// Whether the step can never be a hit.
    pub uncacheable: bool,
}

/// The result of a Dockerfile's step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// The step's vertexes: one, or one per solve if the build needed several solves.
    pub digests: Vec<String>,
    /// The platform, such as `linux/arm64`. Empty if the build has only one.
    pub platform: String,
    /// The stage.
    pub stage: String,
    /// The number in the stage, from 1. `FROM` is 1.
    pub number: u32,
    /// The instruction, such as `COPY . /app`.
    pub instruction: String,
    /// Hit if BuildKit had the result, miss if the step ran, skipped if no other step needed it.
    pub status: StepStatus,
    /// The time that it ran, in seconds.
    pub seconds: f64,
    /// The error, if the step failed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    name: Option<StepName>,
    runs: Vec<(Time, Option<Time>)>,
    cached: bool,
    error: Option<String>,
}

/// Collects the results of steps from events.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    order: Vec<String>,
    seen: HashMap<String, Seen>,
}

impl Steps {
    /// Handles an event.
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
        // A hit stays a hit: BuildKit later shows a cached step as run when it needs the layers. If the step ran in an earlier
        // solve of this build, the next solve finds it cached, but the step stays a miss.
        let ran_before = seen.runs.iter().any(|(start, end)| *start != started && end.is_some());
        seen.cached |= vertex.cached && !ran_before;
        seen.error = (!vertex.error.is_empty()).then(|| vertex.error.clone());
    }

    /// Returns the steps, ordered by stage as the stages appeared. `FROM` is not among them: BuildKit finds its image, and does
    /// not build it.
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

    /// Returns the steps for the run report. `locations` and `notes` are by vertex digest; the locations are from the graph's
    /// source map. The line of a step without a location is 0.
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
                    // A hit of BuildKit's own cache needs no reason.
                    reason: if step.status == StepStatus::Miss { note.reason } else { String::new() },
                    key: note.key,
                }
            })
            .collect()
    }

    /// Returns the tier that BuildKit's own cache achieved: `partial` if at least one step was cached, else `cold`.
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

    // Returns the seconds that the step ran. The runs of one vertex never overlap.
    fn seconds(&self) -> f64 {
        // `sum` returns -0.0 for an empty iterator.
        self.runs.iter().filter_map(|(start, end)| Some((*end)?.seconds_since(*start))).fold(0.0, |all, one| all + one)
    }
}

impl StepResult {
    /// Merges the result of another solve. A step that ran in any solve is a miss, even if the next solve finds it cached.
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
