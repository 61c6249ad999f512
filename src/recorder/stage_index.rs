//! Saves the stages that ran in an index of images, for builds without a plan.

use crate::cache::fault::cache_fault;
use crate::domain::ImageRef;
use crate::engine::buildkit::Session;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::handover::KnownImage;
use crate::publish::release::Released;
use crate::push::RepositoryBlobs;
use crate::run::built::Built;
use crate::run::daemon::DaemonBuild;
use crate::run::imports::CacheImports;
use crate::save::{Executed, StageSaver, put_index, stages_to_save, with_whole_cache};

/// Saves the stages after a push.
pub struct Saving<'a> {
    pub run: &'a DaemonBuild<'a>,
    pub session: &'a Session,
    pub graph: &'a Graph,
    pub executed: &'a Executed,
    /// The stages of the last index.
    pub stages: &'a [KnownImage],
    pub to: &'a ImageRef,
    /// Whether hakobi read the last cache from this index.
    pub is_own: bool,
}

impl Saving<'_> {
    /// Saves the stages that ran and writes the index again. Returns the blobs that are new.
    ///
    /// # Errors
    /// If a stage cannot be saved.
    pub async fn save(&self, released: &Released) -> Result<RepositoryBlobs> {
        let all = self.graph.side_stages();
        let new = stages_to_save(&all, self.executed);
        let of = |image: &KnownImage| image.stage().unwrap_or_default().to_owned();
        let last = |stage: &str| self.stages.iter().find(|image| of(image) == stage);
        let nothing = Ok(RepositoryBlobs::default());
        if released.images.len() != 1 {
            return nothing;
        }
        let as_it_was = new.is_empty() && last("").is_some_and(|image| image.raw == released.images[0].manifest);
        if as_it_was && self.is_own {
            return nothing;
        }
        let run = self.run;
        let step = run.context.events.step("[hakobi] saving the cache");
        let saved = async {
            let intake = released.release.intake_for(self.to, self.stages, &released.images);
            let intake = intake.await?;
            let saver = StageSaver {
                docker: &run.docker,
                buildkit: &run.buildkit,
                session: self.session,
                endpoint: &intake.endpoint,
                intake: &intake.intake,
                entitlements: run.context.build.entitlements.clone(),
                platform: released.images[0].platform.clone(),
                exit: run.transport.exit(&run.info, false),
            };
            let mut images =
                vec![(String::new(), with_whole_cache(&released.images[0], &self.graph.chain(self.graph.result()), last(""))?)];
            for (place, stage) in new.iter().enumerate() {
                let image = saver.save(self.graph, stage, place).await?;
                images.push((stage.name.0.clone(), with_whole_cache(&image, &stage.steps, last(&stage.name.0))?));
            }
            let earlier: Vec<KnownImage> = self
                .stages
                .iter()
                .filter(|image| {
                    all.iter().any(|stage| stage.name.0 == of(image)) && !images.iter().any(|(stage, _)| *stage == of(image))
                })
                .cloned()
                .collect();
            put_index(&intake.pusher, self.to, released.release.repository()?, &images, &earlier).await
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

/// Saves the stages in the cache for the next run.
///
/// # Errors
/// If the cache fails and is required.
#[tracing::instrument(name = "record", level = "info", skip_all)]
pub async fn save(
    daemon: &DaemonBuild<'_>,
    built: &mut Built,
    session: &Session,
    graph: &Graph,
    executed: &Executed,
    imports: &CacheImports,
    released: &Released,
) -> Result<()> {
    let (Some((cache, faults)), Some(to)) = (daemon.context.cache.usable(), daemon.cache_target()) else { return Ok(()) };
    // hakobi does not copy stages that may be damaged.
    let whole = cache.damaged().is_empty() && cache.unusable().is_empty();
    let (before, own) = if whole { (&*imports.cached, imports.own) } else { (&[][..], false) };
    let saved = async {
        cache.begin().await.map_err(cache_fault)?;
        let image = released.saved().await?;
        let saving = Saving { run: daemon, session, graph, executed, stages: before, to: &to, is_own: own };
        let index = saving.save(released).await?;
        Ok::<_, Error>((image.pushed + index.pushed, image.bytes + index.bytes))
    };
    match saved.await {
        Ok((layers, bytes)) => {
            built.report.layers.saved += layers;
            built.report.bytes.saved += bytes;
            Ok(())
        }
        Err(error) => faults.warn_unsaved(&error),
    }
}
