//! After the push: the stages that ran are kept for the next run.

use super::build::Run;
use super::release::Released;
use crate::domain::ImageRef;
use crate::engine::buildkit::Session;
use crate::error::Result;
use crate::graph::Graph;
use crate::handover::KnownImage;
use crate::push::RepositoryBlobs;
use crate::save::{Executed, StageSaver, put_index, stages_to_save, with_whole_cache};

/// Saving the stages after a push.
pub(super) struct Saving<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) session: &'a Session,
    pub(super) graph: &'a Graph,
    pub(super) executed: &'a Executed,
    /// What the last index held.
    pub(super) stages: &'a [KnownImage],
    pub(super) to: &'a ImageRef,
    /// Whether the index is all that is kept, so that it has to hold the released image whatever else there is, and whether
    /// what was read last came from it.
    pub(super) alone: Option<bool>,
}

impl Saving<'_> {
    /// Hands over the stages that ran and puts the index anew; gives what was new.
    pub(super) async fn save(&self, released: &Released) -> Result<RepositoryBlobs> {
        let all = self.graph.side_stages();
        let new = stages_to_save(&all, self.executed);
        let of = |image: &KnownImage| image.stage().unwrap_or_default().to_owned();
        let last = |stage: &str| self.stages.iter().find(|image| of(image) == stage);
        let nothing = Ok(RepositoryBlobs::default());
        if released.images.len() != 1 || (all.is_empty() && self.alone.is_none()) {
            return nothing;
        }
        let as_it_was = new.is_empty() && last("").is_some_and(|image| image.raw == released.images[0].manifest);
        if as_it_was && self.alone != Some(false) {
            return nothing;
        }
        let run = self.run;
        let step = run.job.events.step("[hakobi] saving the cache");
        let saved = async {
            let intake = released.release.intake_for(self.to, self.stages, &released.images);
            let intake = intake.await?;
            let saver = StageSaver {
                docker: &run.docker,
                buildkit: &run.buildkit,
                session: self.session,
                endpoint: &intake.endpoint,
                intake: &intake.intake,
                entitlements: run.job.build.entitlements.clone(),
                platform: released.images[0].platform.clone(),
                exit: run.way.exit(&run.info, false),
            };
            let mut images =
                vec![(String::new(), with_whole_cache(&released.images[0], &self.graph.chain(self.graph.result()), last(""))?)];
            for (place, stage) in new.iter().enumerate() {
                let image = saver.save(self.graph, stage, place).await?;
                images.push((stage.name.0.clone(), with_whole_cache(&image, &stage.steps, last(&stage.name.0))?));
            }
            let kept: Vec<KnownImage> = self
                .stages
                .iter()
                .filter(|image| {
                    all.iter().any(|stage| stage.name.0 == of(image)) && !images.iter().any(|(stage, _)| *stage == of(image))
                })
                .cloned()
                .collect();
            put_index(&intake.pusher, self.to, released.release.repository()?, &images, &kept).await
        }
        .await;
        match saved {
            Ok(layers) => {
                step.done();
                Ok(layers)
            }
            Err(error) => {
                step.failed(&error);
                Err(error)
            }
        }
    }
}
