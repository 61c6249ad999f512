//! Which stages are saved, and how they come out of the daemon: each is exported as an image of its own and handed over like
//! the released one, so that only what is new in it moves.

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
    /// How long each took, in seconds.
    took: HashMap<String, f64>,
    found: HashSet<String>,
    failed: Option<String>,
}

impl Executed {
    /// Takes note of an event.
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

    /// The first step that ended with an error.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Whether a step ran.
    #[must_use]
    pub fn ended(&self, step: &Digest) -> bool {
        let step = step.to_string();
        self.ended.contains(&step) && !self.found.contains(&step)
    }

    /// Whether a step's result was in the daemon's cache.
    #[must_use]
    pub fn found(&self, step: &Digest) -> bool {
        self.found.contains(&step.to_string())
    }

    /// How long a step took that ran, in seconds.
    #[must_use]
    pub fn seconds(&self, step: &Digest) -> Option<f64> {
        self.took.get(&step.to_string()).copied().filter(|_| self.ended(step))
    }

    /// Whether any of the stage's steps ran.
    #[must_use]
    pub fn ran(&self, stage: &Stage) -> bool {
        stage.steps.iter().any(|step| self.ended(&step.digest))
    }
}

/// The stages with something new in them. One whose steps were all cached is as it was when it was saved last; one that no
/// step needed is not in the daemon at all, and must not be built to be saved.
#[must_use]
pub fn stages_to_save<'a>(stages: &'a [Stage], executed: &Executed) -> Vec<&'a Stage> {
    stages.iter().filter(|stage| executed.ran(stage)).collect()
}

/// The configuration of an image that is wanted for its layers alone: the exporter fills in what they are.
#[must_use]
pub fn bare_config(platform: &Platform) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os, "variant": platform.variant,
        "config": {}, "rootfs": { "type": "layers", "diff_ids": [] }, "history": [],
    });
    config.to_string().into_bytes()
}

/// Takes stages out of the daemon.
pub struct StageSaver<'a> {
    /// The daemon.
    pub docker: &'a Docker,
    /// Its BuildKit.
    pub buildkit: &'a BuildKit,
    /// The session of the build: its local directories are named in the graph.
    pub session: &'a Session,
    /// Where the daemon pushes to.
    pub endpoint: &'a Endpoint,
    /// What takes it there.
    pub intake: &'a Intake,
    /// What steps were allowed to do.
    pub entitlements: Vec<String>,
    /// What the stages are for.
    pub platform: Platform,
    /// The way out.
    pub exit: Exit,
}

impl StageSaver<'_> {
    /// The name that a stage has in the daemon while it is handed over.
    #[must_use]
    pub fn reference(&self, place: usize) -> ImageRef {
        self.endpoint.reference(&format!("stage-{place}"))
    }

    /// Hands a stage over; nothing runs, its result is there.
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
        // From before it is there, so that it goes whatever happens meanwhile.
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
