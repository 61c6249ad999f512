//! What can be done before a daemon is asked: where a Dockerfile's compiled form is remembered and nothing changed, all of it.

use std::time::Instant;

use super::assembling::Assembled;
use super::build::Built;
use super::compiling::{CompiledKey, machine};
use super::job::Job;
use super::moving::PLANS;
use super::planning::{Planned, Remembered};
use super::unchanged::Put;
use crate::build::{Input, frontend_options};
use crate::engine::buildkit::SolveOutcome;
use crate::engine::{Docker, EngineInfo};
use crate::error::{Error, Result};
use crate::graph;
use crate::plan::{Inputs, explain};
use crate::report::{StrategyUsed, Tier};
use crate::settings::Strategy;

/// How far a build came.
pub(super) enum Ahead {
    /// To its end.
    Done,
    /// It is planned, and something has to run.
    Open(Box<Planned>),
    /// Nowhere: nothing is remembered, or it is not to be planned.
    Nothing(Option<CompiledKey>),
}

impl Ahead {
    /// What the compiled form is remembered by, where it may be.
    pub(super) fn key(&self) -> Option<&CompiledKey> {
        match self {
            Self::Open(planned) => planned.compiled_by.as_ref(),
            Self::Nothing(key) => key.as_ref(),
            Self::Done => None,
        }
    }
}

impl Job<'_> {
    /// Whether hakobi plans a build of these directories.
    pub(super) fn plans(&self, input: &Input) -> bool {
        self.build.strategy == Strategy::Auto && self.kept().is_some() && !input.directories.is_empty()
    }

    /// Plans with the compiled form that is remembered, whose bases are as they are in their registries now.
    pub(super) async fn remembered_plan(
        &self,
        input: &Input,
        records: &Remembered<'_>,
        daemon: Option<(&Docker, &EngineInfo)>,
    ) -> Result<Ahead> {
        let platform = daemon.map_or_else(machine, |(_, info)| info.platform.clone());
        let options = frontend_options(self.build, input, &[]);
        if self.build.platforms.len() > 1 {
            return Ok(Ahead::Nothing(None));
        }
        let Some(key) = CompiledKey::of(input, &options, &platform, self.events.hidden()) else {
            return Ok(Ahead::Nothing(None));
        };
        let Some(recalled) = self.recall(&key, records).await? else { return Ok(Ahead::Nothing(Some(key))) };
        let mut planned = self.plan(recalled.compiled, &input.directories, records, recalled.facts, None).await?;
        if recalled.by_record {
            planned.take_recorded_bases(records).await?;
        }
        if let Some((docker, _)) = daemon
            && self.daemon_differs(docker, &planned).await
        {
            return Ok(Ahead::Nothing(Some(key)));
        }
        planned.compiled_by = Some(key);
        Ok(Ahead::Open(Box::new(planned)))
    }

    /// Puts the image, where all of it is kept and it is only to be pushed.
    pub(super) async fn ahead(
        &self,
        built: &mut Built,
        input: &Input,
        daemon: Option<(&Docker, &EngineInfo)>,
        began: Instant,
    ) -> Result<Ahead> {
        let mut plans = PLANS;
        loop {
            plans -= 1;
            if let Some(ahead) = Box::pin(self.ahead_by_one_plan(built, input, daemon, began, plans)).await? {
                return Ok(ahead);
            }
        }
    }

    /// Gives `None` if the sources moved and it may be planned again.
    async fn ahead_by_one_plan(
        &self,
        built: &mut Built,
        input: &Input,
        daemon: Option<(&Docker, &EngineInfo)>,
        began: Instant,
        plans: u32,
    ) -> Result<Option<Ahead>> {
        let Some((kept, faults)) = self.kept().filter(|_| self.plans(input)) else { return Ok(Some(Ahead::Nothing(None))) };
        let records = Remembered::of(kept, faults);
        let mut planned = match self.remembered_plan(input, &records, daemon).await? {
            Ahead::Open(planned) => planned,
            other => return Ok(Some(other)),
        };
        let released = match self.put(&planned, kept, &records).await? {
            Put::Done(released) => {
                self.explain(built, &planned, None, &Inputs::default());
                built.tier = Some(Tier::Unchanged);
                *released
            }
            Put::Failed => {
                planned.without_records();
                return Ok(Some(Ahead::Open(planned)));
            }
            // The daemon is to say whether it is right.
            Put::Open if self.build.verify => return Ok(Some(Ahead::Open(planned))),
            Put::Open => match self.assemble(&planned, kept, &records).await? {
                Assembled::Done(released, new) => {
                    let inputs = Inputs::of(&planned.graph, &planned.keys, &planned.facts, self.events.hidden());
                    let before = records.one::<Inputs>(&kept.inputs_key()).await?;
                    self.explain(built, &planned, before.as_ref(), &inputs);
                    self.show_assembled(&planned);
                    built.tier = Some(Tier::Append);
                    let at = Instant::now();
                    match self.remember_assembled(&planned, kept, &released, new, &inputs).await {
                        Ok(saved) => {
                            built.report.layers.saved += saved.pushed;
                            built.report.bytes.saved += saved.bytes;
                        }
                        Err(error) => faults.tell("did not take this build", &error)?,
                    }
                    built.report.seconds.save = at.elapsed().as_secs_f64();
                    *released
                }
                Assembled::Not(why) => {
                    planned.not_assembled = why;
                    return Ok(Some(Ahead::Open(planned)));
                }
                Assembled::Moved(difference) if plans > 0 => {
                    self.tell_moved(&difference, plans);
                    return Ok(None);
                }
                Assembled::Moved(difference) => {
                    planned.not_assembled = Some(format!("the build context changes while it is read ({difference})"));
                    return Ok(Some(Ahead::Open(planned)));
                }
                Assembled::Failed => {
                    planned.without_records();
                    return Ok(Some(Ahead::Open(planned)));
                }
            },
        };
        built.report.strategy = StrategyUsed::Auto;
        built.report.seconds.plan = began.elapsed().as_secs_f64() - built.report.seconds.save;
        built.places = planned.graph.places();
        self.show_hits(&planned);
        self.end(built, &planned, String::new(), SolveOutcome::default(), Some(released), None)?;
        Ok(Some(Ahead::Done))
    }

    /// Why a build that came so far needs the daemon that could not be had.
    pub(super) async fn needs_daemon(&self, error: Error, ahead: &Ahead, input: &Input) -> Error {
        const HINT: &str =
            "give the job a Docker daemon (privileged mode in CodeBuild), or run this build once where there is one";
        let Some((kept, faults)) = self.kept().filter(|_| self.plans(input)) else { return error };
        let planned = match ahead {
            Ahead::Open(planned) => planned,
            Ahead::Done => return error,
            Ahead::Nothing(_) => {
                let what = "no build of this Dockerfile with these options and base images is remembered, and reading it takes a Docker daemon";
                return Error::no_daemon(what).because(&error).hint(HINT);
            }
        };
        let now = Inputs::of(&planned.graph, &planned.keys, &planned.facts, self.events.hidden());
        let before = Remembered::of(kept, faults).one::<Inputs>(&kept.inputs_key()).await.ok().flatten();
        let reasons = explain(&planned.graph, &planned.plan, before.as_ref(), &now);
        let all = planned.graph.below(planned.graph.result()).into_iter();
        let mut open = all.filter(|op| planned.plan.runs(&op.digest));
        let what = match open.next() {
            Some(op) => {
                let why = reasons.get(&op.digest).map(|reason| format!(" ({reason})")).unwrap_or_default();
                let also = planned.not_assembled.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                format!("`{}` has to run{why}, and that takes a Docker daemon{also}", graph::instruction_of(&op.name))
            }
            // `--load` and outputs: it is the daemon's copy that is wanted.
            None => "the image is wanted from a Docker daemon".to_owned(),
        };
        Error::no_daemon(what).because(&error).hint(HINT)
    }
}
