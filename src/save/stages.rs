//! Decides which stages are saved, and takes them from the daemon. Each is exported as its own image and handed over like the
//! released one, so that only its new layers move.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::domain::{Digest, ImageRef, Platform};
use crate::engine::buildkit::{BuildKit, CacheOption, Export, Session, SolveRequest, Solved};
use crate::engine::{BorrowedName, Docker};
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::graph::{Graph, Stage};
use crate::handover::{Intake, PreparedImage, out_of_space_error};
use crate::local_registry::Endpoint;

use super::exit::Exit;

/// The steps that ran in this build, by their digests.
#[derive(Debug, Clone, Default)]
pub struct Executed {
    ended: HashSet<String>,
    /// How long each step took, in seconds.
    took: HashMap<String, f64>,
    found: HashSet<String>,
    failed: Option<String>,
}

impl Executed {
    /// Notes an event.
    pub fn listen(&mut self, event: &Event) {
        let Event::Status(status) = event else { return };
        for vertex in &status.vertexes {
            if !vertex.error.is_empty() && !vertex.error.contains("context canceled") {
                self.failed.get_or_insert_with(|| vertex.digest.clone());
            }
            if vertex.cached {
                self.found.insert(vertex.digest.clone());
            } else if vertex.completed.is_some() && vertex.error.is_empty() {
                self.ended.insert(vertex.digest.clone());
                if let Some((started, completed)) = vertex.started.zip(vertex.completed) {
                    self.took.insert(vertex.digest.clone(), completed.seconds_since(started));
                }
            }
        }
        self.found.extend(status.statuses.iter().filter(|part| part.is_pull()).map(|part| part.vertex.clone()));
    }

    /// Returns the first step that ended with an error, or `None`.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Returns whether a step ran.
    #[must_use]
    pub fn ended(&self, step: &Digest) -> bool {
        let step = step.to_string();
        self.ended.contains(&step) && !self.found.contains(&step)
    }

    /// Returns whether a step's result was in the daemon's cache.
    #[must_use]
    pub fn found(&self, step: &Digest) -> bool {
        self.found.contains(&step.to_string())
    }

    /// Returns how long a step took in seconds, or `None` if it did not run.
    #[must_use]
    pub fn seconds(&self, step: &Digest) -> Option<f64> {
        self.took.get(&step.to_string()).copied().filter(|_| self.ended(step))
    }

    /// Returns whether any of the stage's steps ran.
    #[must_use]
    pub fn ran(&self, stage: &Stage) -> bool {
        stage.steps.iter().any(|step| self.ended(&step.digest))
    }
}

/// Returns the stages with new results. A stage whose steps were all cached is unchanged since it was saved last. A stage that no
/// step needed is not in the daemon, and must not be built only to save it.
#[must_use]
pub fn stages_to_save<'a>(stages: &'a [Stage], executed: &Executed) -> Vec<&'a Stage> {
    stages.iter().filter(|stage| executed.ran(stage)).collect()
}

/// Returns the configuration of an image that is needed only for its layers: the exporter fills these in.
#[must_use]
pub fn bare_config(platform: &Platform) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os, "variant": platform.variant,
        "config": {}, "rootfs": { "type": "layers", "diff_ids": [] }, "history": [],
    });
    config.to_string().into_bytes()
}

/// Takes stages from the daemon.
pub struct StageSaver<'a> {
    /// The daemon.
    pub docker: &'a Docker,
    /// Its BuildKit.
    pub buildkit: &'a BuildKit,
    /// The session of the build: the graph names its local directories.
    pub session: &'a Session,
    /// The endpoint that the daemon pushes to.
    pub endpoint: &'a Endpoint,
    /// The intake behind the endpoint.
    pub intake: &'a Intake,
    /// The entitlements of the steps.
    pub entitlements: Vec<String>,
    /// The platform of the stages.
    pub platform: Platform,
    /// How images leave the daemon.
    pub exit: Exit,
}

impl StageSaver<'_> {
    /// Returns the name of a stage in the daemon during the hand-over.
    #[must_use]
    pub fn reference(&self, place: usize) -> ImageRef {
        self.endpoint.reference(&format!("stage-{place}"))
    }

    /// Saves a stage. No step runs, because the daemon has the result.
    ///
    /// # Errors
    /// If the daemon or a registry refuses.
    pub async fn save(&self, graph: &Graph, stage: &Stage, place: usize) -> Result<PreparedImage> {
        let reference = self.reference(place);
        let name = format!("stage-{place}");
        let export = match self.exit {
            Exit::Straight => Export::to_registry(&reference),
            Exit::Pushed | Exit::Saved => Export::into_daemon(&[reference.to_string()]),
        };
        let request = SolveRequest {
            exports: vec![export],
            cache_exports: vec![CacheOption { kind: "inline".to_owned(), attributes: BTreeMap::new() }],
            entitlements: self.entitlements.clone(),
            platform: None,
        };
        self.intake.begin(&name);
        // Borrowed before the image exists, so that hakobi removes the name whatever happens meanwhile.
        let borrowed = (self.exit != Exit::Straight).then(|| self.docker.borrow(reference.clone()));
        let definition = graph.cut(&stage.state);
        let config = bare_config(&self.platform);
        let result = self
            .buildkit
            .build(self.session, request, &Events::none(), |mut gateway| async move {
                let solved = gateway.graph(definition, &[], true).await?;
                let metadata = [("containerimage.config".to_owned(), config)].into();
                Ok(Solved { metadata, ..solved })
            })
            .await;
        let solved =
            result.map_err(|status| Error::push(format!("failed to export the stage {}: {}", stage.name.0, status.message())))?;
        borrowed.into_iter().for_each(BorrowedName::hand_on);
        tokio::select! {
            handed = self.exit.hand_over(self.docker, &reference, self.intake, &name, solved.made()) => handed?,
            why = self.endpoint.out_of_space() => return Err(out_of_space_error(&why)),
        }
        self.intake.compose(&name, &BTreeMap::new()).await?.pop().ok_or_else(|| Error::push("the daemon pushed nothing"))
    }
}
