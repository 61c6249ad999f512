//! Sources that move: files of a build context that change while a build reads them. What was sent is what was keyed, or the build is
//! planned again; where they do not come to rest, it is built of what is there, as Docker would, and nothing of that is remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::ahead::Ahead;
use super::build::{Built, Run};
use super::cache::Cache;
use super::compiling::CompiledKey;
use super::job::Job;
use super::planned::Work;
use super::planning::{Planned, Remembered};
use super::transport::Way;
use crate::build::{Input, frontend_options};
use crate::context::{Difference, Selection, Tree};
use crate::domain::Hasher;
use crate::engine::buildkit::{Outputs, Session};
use crate::error::Result;
use crate::plan::selection;

/// How often a build is planned while its sources move.
pub(super) const PLANS: u32 = 3;

/// What a planned build begins with.
pub(super) struct Start<'a> {
    pub(super) options: &'a HashMap<String, String>,
    pub(super) cache: &'a Cache,
    pub(super) sinks: &'a Outputs,
    pub(super) began: Instant,
}

impl Run<'_> {
    /// Builds by plan, and plans again if the sources moved. Gives the session back where there is no plan to build by.
    pub(super) async fn build_by_plan(
        &self,
        built: &mut Built,
        input: &mut Input,
        mut ahead: Ahead,
        start: Start<'_>,
    ) -> Result<Option<Session>> {
        // A stream that was read cannot be sent again.
        let mut plans = if self.job.is_repeatable() { PLANS } else { 0 };
        loop {
            let key = ahead.key().filter(|_| plans > 0);
            let shared_key = shared_key(input, key, plans > 0);
            let session = self.session(input, start.sinks, Some(shared_key)).await?;
            if let Some(key) = key {
                session.expect_files(key.files());
            }
            let error = match Box::pin(self.by_one_plan(built, input, ahead, &session, &start, plans > 0)).await {
                Ok(true) => return Ok(None),
                Ok(false) => {
                    session.expect_nothing();
                    return Ok(Some(session));
                }
                Err(error) => error,
            };
            let Some(difference) = session.moved().filter(|_| plans > 0) else { return Err(error) };
            plans -= 1;
            self.job.tell_moved(&difference, plans);
            ahead = Ahead::Nothing(self.job.compiled_by(input, &self.info.platform));
        }
    }

    /// Tells whether there was a plan.
    async fn by_one_plan(
        &self,
        built: &mut Built,
        input: &Input,
        ahead: Ahead,
        session: &Session,
        start: &Start<'_>,
        is_checked: bool,
    ) -> Result<bool> {
        let Some((kept, faults)) = self.job.kept() else { return Ok(false) };
        let Some(mut planned) = self.planned(session, start.options, input, ahead).await? else { return Ok(false) };
        if self.way != Way::Registry && !planned.knows_bases() {
            return Ok(false);
        }
        if is_checked {
            session.expect_trees(planned.expected());
        } else {
            planned.leave_sources_open(&Remembered::of(kept, faults)).await?;
        }
        let work = Work { session, sinks: start.sinks, cache: start.cache };
        let done = Box::pin(self.run_planned(built, planned, work, start.began)).await;
        self.unload().await;
        done.map(|()| true)
    }
}

/// What the daemon keeps its copies of local directories under. It takes a file of the same size and time for the same: an older
/// Dockerfile must not stand for the one that the key was made of.
fn shared_key(input: &Input, key: Option<&CompiledKey>, is_checked: bool) -> String {
    if !is_checked {
        return format!("{} {:032x}", input.shared_key, rand::random::<u128>());
    }
    let Some(key) = key else { return input.shared_key.clone() };
    let mut hasher = Hasher::default();
    for content in key.files().iter().map(|file| &file.content) {
        hasher.update(format!("{content:?}\n").as_bytes());
    }
    format!("{} {}", input.shared_key, hasher.digest())
}

impl Job<'_> {
    /// Says that sources moved, and what comes of it when they may do so this often still.
    pub(super) fn tell_moved(&self, difference: &Difference, plans: u32) {
        let what = match plans {
            0 => "building from the files as they are sent; the steps that read them are not saved",
            _ => "planning the build again",
        };
        self.events.warning(format!("the build context changed while it was read ({difference}): {what}"));
    }

    /// What the compiled form of the files that are there now is remembered by.
    fn compiled_by(&self, input: &Input, platform: &str) -> Option<CompiledKey> {
        let options = frontend_options(self.build, input, &[]);
        if self.build.platforms.len() > 1 { None } else { CompiledKey::of(input, &options, platform, self.events.hidden()) }
    }
}

impl Planned {
    /// The files that its keys were made of, by the local sources that select them.
    pub(super) fn expected(&self) -> Vec<((String, Selection), Arc<Tree>)> {
        let ops = self.graph.below(self.graph.result()).into_iter();
        let trees = ops.filter_map(|op| {
            let tree = self.facts.locals.get(&op.digest)?.as_ref().ok()?;
            Some((selection(op)?, Arc::clone(tree)))
        });
        trees.collect()
    }

    /// Whether it is known of each of its local sources which files it is.
    pub(super) fn knows_sources(&self) -> bool {
        self.facts.locals.values().all(std::result::Result::is_ok)
    }

    /// Plans anew with sources that nothing is known of: what is built of them has no key.
    async fn leave_sources_open(&mut self, records: &Remembered<'_>) -> Result<()> {
        for tree in self.facts.locals.values_mut() {
            *tree = Err("the build context changes while it is read".to_owned());
        }
        self.compiled_by = None;
        self.decide(records).await
    }
}
