//! A planned build: what is kept is put or grafted, what is open runs in the daemon, and all of it is remembered.

use std::collections::HashSet;
use std::time::Instant;

use futures::future::try_join_all;

use super::appending::Appended;
use super::build::{Built, Run};
use super::cache::Cache;
use super::kept::Kept;
use super::planning::{Planned, Remembered};
use super::recording::Recording;
use super::release::{Release, Released};
use super::solving::{Attempted, Course, broken};
use super::unchanged::Put;
use crate::domain::Digest;
use crate::engine::buildkit::{Gateway, Outputs, Session, SolveOutcome, SolveRequest, Solved};
use crate::error::{Error, Result};
use crate::graph::{Grafted, Graph, Input, Taken};
use crate::plan::{HopeRecord, Inputs, hopes, next_round};
use crate::report::{StrategyUsed, Tier};

/// What a planned build works with.
pub(super) struct Work<'a> {
    pub(super) session: &'a Session,
    pub(super) sinks: &'a Outputs,
    pub(super) cache: &'a Cache,
}

impl Run<'_> {
    /// Builds by plan.
    pub(super) async fn run_planned(
        &self,
        built: &mut Built,
        mut planned: Planned,
        work: Work<'_>,
        began: Instant,
    ) -> Result<()> {
        let job = &self.job;
        let Some((kept, faults)) = job.kept() else { return Err(Error::build("there is no store to plan with")) };
        built.report.strategy = StrategyUsed::Auto;
        let records = Remembered::of(kept, faults);
        built.report.seconds.plan = began.elapsed().as_secs_f64();
        built.places = planned.graph.places();
        let mut inputs = Inputs::of(&planned.graph, &planned.keys, &planned.facts, job.events.hidden());
        let mut course = Course::default();
        // Base images are kept while the daemon pulls them.
        if self.keeps().is_some()
            && let Err(error) = kept.begin().await
        {
            faults.tell("does not take this build", &error)?;
        }
        planned.made_there = self.made_there(&planned, kept, &records, &work).await?;
        let (mut before, mut assembled, mut laid) = (None, None, false);
        let released = loop {
            match job.put(&planned, kept, &records).await? {
                Put::Done(released) => {
                    if before.is_none() {
                        job.explain(built, &planned, None, &Inputs::default());
                    }
                    let tier = (!course.ran_steps(&planned.graph)).then_some(Tier::Unchanged);
                    break Some((released, tier));
                }
                Put::Failed => planned.without_records(),
                Put::Open => {}
            }
            if before.is_none() {
                before = Some(records.one::<Inputs>(&kept.inputs_key()).await?);
                job.explain(built, &planned, before.as_ref().and_then(Option::as_ref), &inputs);
            }
            // Layers that are to come down have to be there; a daemon that made them itself asks for none.
            if !planned.is_there() {
                match planned.forget_lost(kept, &records).await {
                    Ok(false) => {}
                    Ok(true) => job.events.note("the cache lost layers of what it remembers: that is made anew"),
                    Err(error) => {
                        faults.give_up();
                        faults.tell("is not used", &error)?;
                        planned.without_records();
                    }
                }
            }
            let at = Instant::now();
            let looked = self.round(built, &mut planned, &mut course, kept, &records, &work).await?;
            built.report.seconds.build += at.elapsed().as_secs_f64();
            if looked {
                continue;
            }
            match self.append(built, &mut planned, &mut course, kept, &records, &work).await? {
                Appended::Done(released) => {
                    laid = true;
                    let tier = (!course.ran_commands(&planned.graph)).then_some(Tier::Append);
                    break Some((released, tier));
                }
                Appended::Here(released, records) => {
                    job.show_assembled(&planned);
                    (assembled, laid) = (Some(records), true);
                    break Some((released, Some(Tier::Append)));
                }
                Appended::Again => {}
                Appended::No => break None,
            }
        };
        job.show_hits(&planned);
        let (released, id, solved) = match released {
            Some((released, tier)) => {
                built.tier = tier;
                (Some(*released), String::new(), SolveOutcome::default())
            }
            None => {
                let done = self.finish(built, &mut planned, &mut course, kept, &work).await?;
                built.tier = (planned.plan.unchanged && !course.ran_steps(&planned.graph)).then_some(Tier::Unchanged);
                done
            }
        };
        let verified = match &released {
            Some(released) if job.build.verify && laid => self.verify(&planned, &course, kept, &work, released).await,
            _ => Ok(()),
        };
        built.report.bytes.context = work.session.bytes_sent();
        if before.is_none() && planned.is_new_form {
            before = Some(records.one::<Inputs>(&kept.inputs_key()).await?);
        }
        let before = before.flatten();
        inputs.measure(&planned.graph, &course.seconds, before.as_ref());
        job.advise(built, &planned, &course.ran, before.as_ref(), &inputs);
        built.ran_all = course.ran_all(&planned.graph);
        let by_daemon = assembled.is_none() && !planned.plan.unchanged;
        let is_new = !course.given.is_empty() || assembled.is_some() || by_daemon || planned.is_new_form;
        if let Some(released) = released.as_ref().filter(|_| self.keeps().is_some() && is_new) {
            let at = Instant::now();
            let recording = Recording { run: self, work: &work, planned: &planned, kept };
            let assembled = assembled.unwrap_or_default();
            let recorded = match course.given.is_empty() && !by_daemon {
                true => job.remember_assembled(&planned, kept, released, assembled, &inputs).await,
                false => Box::pin(recording.record(course, released, &inputs, assembled)).await,
            };
            match recorded {
                Ok(saved) => {
                    built.report.layers.saved += saved.pushed;
                    built.report.bytes.saved += saved.bytes;
                }
                Err(error) => faults.tell("did not take this build", &error)?,
            }
            built.report.seconds.save = at.elapsed().as_secs_f64();
        }
        job.end(built, &planned, id, solved, released, Some(&self.info))?;
        verified
    }

    /// Runs the stages whose files decide whether other steps are kept, looks at these, and plans again; tells whether there were
    /// any.
    async fn round(
        &self,
        built: &mut Built,
        planned: &mut Planned,
        course: &mut Course,
        kept: &Kept,
        records: &Remembered<'_>,
        work: &Work<'_>,
    ) -> Result<bool> {
        let hoped = hopes(&planned.graph, &planned.keys, &planned.plan);
        let keys: Vec<_> = hoped.iter().map(|(_, key)| key.clone()).collect();
        let known = records.read::<HopeRecord>(&keys).await?;
        let hopeful: Vec<Input> = hoped.into_iter().filter(|(_, key)| known.contains_key(key)).map(|(state, _)| state).collect();
        let round = next_round(&planned.graph, &planned.keys, &planned.plan, &planned.facts.seen, &hopeful);
        if round.is_empty() {
            return Ok(false);
        }
        self.look_at_all(built, planned, course, kept, records, work, round).await?;
        Ok(true)
    }

    /// Has the stages solved that all this is taken out of, looks at it, and plans again.
    #[allow(clippy::too_many_arguments, reason = "a run's state, which its steps change one after another")]
    pub(super) async fn look_at_all(
        &self,
        built: &mut Built,
        planned: &mut Planned,
        course: &mut Course,
        kept: &Kept,
        records: &Remembered<'_>,
        work: &Work<'_>,
        round: Vec<Taken>,
    ) -> Result<()> {
        course.take_grafts(self.grafts(planned, kept, None)?, planned);
        let states: HashSet<&Input> = round.iter().map(|taken| &taken.state).collect();
        let mut all = Vec::new();
        for state in states {
            let grafted = planned.graph.grafted(state, &course.grafts, &course.given).map_err(|error| broken(&error))?;
            tell_places(built, &grafted);
            all.push(grafted);
        }
        let definitions: Vec<_> = all.iter().map(|grafted| grafted.definition.clone()).collect();
        let imports = work.cache.imports.clone();
        let ask = |gateway: Gateway| {
            let solves = definitions.clone().into_iter().map(|definition| {
                let (mut gateway, imports) = (gateway.clone(), imports.clone());
                async move { gateway.graph(definition, &imports, true).await }
            });
            let solves = try_join_all(solves);
            async move { solves.await.map(|_| Solved::default()) }
        };
        let request = SolveRequest { entitlements: self.job.build.entitlements.clone(), ..SolveRequest::default() };
        let grafted: Vec<&Grafted> = all.iter().collect();
        match self.attempt(work, &grafted, request, course, None, ask).await? {
            Attempted::Done(_) => {}
            Attempted::WithoutStore => {
                planned.without_records();
                return Ok(());
            }
            Attempted::Moved => {
                planned.without_pins();
                return Ok(());
            }
            Attempted::Otherwise => return Ok(()),
        }
        for taken in round {
            let content = match self.look_at(planned, course, work, &taken).await {
                Ok(content) => content,
                Err(error) => {
                    if work.session.moved().is_some() {
                        return Err(error);
                    }
                    if self.passes_by(course).await {
                        return Ok(());
                    }
                    if !self.job.trusts_store() && course.has_grafts() {
                        self.job.store_failed(error.message(), None)?;
                        course.grafts.clear();
                        planned.without_records();
                        return Ok(());
                    }
                    if !self.docker.answers().await {
                        return Err(error);
                    }
                    // It is like nothing that was seen before: what copies from there runs.
                    self.job
                        .events
                        .warning(format!("{error}; the steps that copy from there run, and this build is not remembered"));
                    course.unknown.insert(taken.place());
                    Digest::of(&rand::random::<[u8; 32]>())
                }
            };
            planned.facts.seen.insert(taken.place(), content);
        }
        planned.decide(records).await
    }

    /// Opens the way out of the daemon, if anything is to come out.
    pub(super) async fn open_release(&self, planned: &Planned, work: &Work<'_>) -> Result<Option<Release>> {
        let job = &self.job;
        // What is kept already is not handed over to be kept.
        let keep = self.keeps().map(|target| target.repository).filter(|_| job.build.push || !planned.plan.unchanged);
        if !job.build.push && keep.is_none() {
            return Ok(None);
        }
        let tags = if job.build.push { &*job.tags } else { &[] };
        // Of a Dockerfile that was remembered nobody has asked yet where its bases' layers are.
        let mut known = match planned.bases.is_empty() && planned.recorded_bases.is_none() {
            true => job.bases(&planned.graph).await,
            false => planned.bases.values().cloned().collect(),
        };
        known.extend_from_slice(work.cache.latest());
        let settings = &job.build.push_settings;
        Ok(Some(Release::open(&job.registries, tags, keep.as_ref(), settings, &known, job.events).await?))
    }

    /// Solves what is left to do, and has the image handed over.
    async fn finish(
        &self,
        built: &mut Built,
        planned: &mut Planned,
        course: &mut Course,
        kept: &Kept,
        work: &Work<'_>,
    ) -> Result<(Option<Released>, String, SolveOutcome)> {
        let job = &self.job;
        loop {
            let release = self.open_release(planned, work).await?;
            let at = Instant::now();
            let solved = self.solve_planned(built, planned, course, kept, work, release.as_ref()).await?;
            built.report.seconds.build += at.elapsed().as_secs_f64();
            let id = solved.exporter.get("containerimage.digest").cloned().unwrap_or_default();
            let Some(release) = release else { return Ok((None, id, solved)) };
            let at = Instant::now();
            let before = if job.gave_store_up() { work.cache.latest().to_vec() } else { work.cache.before() };
            let done = release.push(&self.docker, self.exit(), solved.made(), job.annotations(), &before, false, &[]);
            let done = Box::pin(done).await;
            built.report.seconds.push += at.elapsed().as_secs_f64();
            match done {
                // The daemon does not hand over what the store has already, and that does not give it.
                Err(failure) if job.failed_by_store(&failure)? => {
                    course.grafts.clear();
                    planned.without_records();
                }
                done => return Ok((job.released(done.map_err(Error::from))?, id, solved)),
            }
        }
    }

    /// Solves what is open on what is kept.
    async fn solve_planned(
        &self,
        built: &mut Built,
        planned: &mut Planned,
        course: &mut Course,
        kept: &Kept,
        work: &Work<'_>,
        release: Option<&Release>,
    ) -> Result<SolveOutcome> {
        loop {
            course.take_grafts(self.grafts(planned, kept, release)?, planned);
            let result = planned.graph.result();
            let grafted = planned.graph.grafted(result, &course.grafts, &course.given).map_err(|error| broken(&error))?;
            tell_places(built, &grafted);
            let (exports, files) = self.exports(release, work.sinks)?;
            let request = self.request(exports, self.cache_exports(false));
            let (definition, metadata) = (&grafted.definition, &planned.compiled.metadata());
            let imports = &work.cache.imports;
            let ask = |mut gateway: Gateway| async move {
                let solved = gateway.graph(definition.clone(), imports, false).await?;
                Ok(Solved { metadata: metadata.clone(), ..solved })
            };
            match self.attempt(work, &[&grafted], request, course, release, ask).await? {
                Attempted::Done(solved) => {
                    files.finish().await?;
                    return Ok(solved);
                }
                Attempted::WithoutStore => planned.without_records(),
                Attempted::Moved => planned.without_pins(),
                Attempted::Otherwise => {}
            }
        }
    }
}

/// Where the steps of a graph stand in the user's file, and what is said of them, under the names that they have in it.
pub(super) fn tell_places(built: &mut Built, grafted: &Grafted) {
    let graph = Graph::new(grafted.definition.clone()).ok();
    built.places.extend(graph.as_ref().map(Graph::places).unwrap_or_default());
    for (digest, name) in &grafted.names {
        if let Some(note) = built.notes.get(&digest.to_string()).cloned() {
            built.notes.insert(name.to_string(), note);
        }
    }
}
