//! A daemon that answers, and a build with such a daemon.

use std::path::Path;
use std::sync::Arc;

use crate::build::{Failed, Input, Refusal, SessionCredentials, failure, is_cut_off};
use crate::domain::{ImageRef, Made};
use crate::engine::buildkit::{BuildKit, ContentSources, CredentialSource, LocalDirs, Outputs, Session, SessionParts, SshAgents};
use crate::engine::{Dialer, Docker, EngineInfo, StoreKind};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::output::{self, EngineReport, Transport};
use crate::run::context::BuildContext;
use crate::run::loaded::Loaded;
use crate::run::transport::LayerTransport;
use crate::save::{Executed, Exit};
use crate::settings::DaemonEndpoint;

/// From this API version on (Docker 26, BuildKit 0.13), a build may have several outputs.
pub const SEVERAL_EXPORTS_API: (u32, u32) = (1, 45);

/// A daemon that answers.
pub struct Daemon {
    pub docker: Docker,
    pub buildkit: BuildKit,
    pub info: EngineInfo,
}

impl Daemon {
    /// Connects to the daemon at this address.
    ///
    /// # Errors
    /// If none answers.
    #[tracing::instrument(name = "open", level = "info", skip_all, fields(daemon = %endpoint.origin))]
    pub async fn connect(endpoint: &DaemonEndpoint) -> Result<Self> {
        let docker = Docker::connect(Dialer::new(endpoint)?).await?;
        let info = docker.info().await?;
        let buildkit = BuildKit::connect(docker.dialer(), info.api).await?;
        Ok(Self { docker, buildkit, info })
    }
}

pub struct DaemonBuild<'a> {
    pub context: BuildContext<'a>,
    pub docker: Docker,
    pub buildkit: BuildKit,
    pub info: EngineInfo,
    /// How layers move to and from the daemon.
    pub transport: LayerTransport,
    /// The images that hakobi loaded into it as archives.
    pub loaded: Loaded,
}

impl DaemonBuild<'_> {
    /// Starts a session that serves the inputs of the build. The daemon stores its copies of local directories under the shared
    /// key.
    ///
    /// # Errors
    /// If an SSH agent is not reachable, or the daemon refuses the session.
    pub async fn session(&self, input: &mut Input, sinks: &Outputs, shared_key: Option<String>) -> Result<Session> {
        let parts = SessionParts {
            shared_key: shared_key.unwrap_or_else(|| input.shared_key.clone()),
            directories: input.directories.clone(),
            credentials: Some(Arc::new(SessionCredentials(self.context.registries.clone()))),
            secrets: self.context.build.secrets.clone(),
            ssh: SshAgents::open(&self.context.build.ssh).await?,
            uploads: std::mem::take(&mut input.uploads),
            outputs: sinks.clone(),
            contents: self.contents(),
        };
        Session::start(&self.buildkit, parts, self.context.events).await
    }

    /// Starts a session that serves nothing but this directory, beside the session of the build.
    ///
    /// # Errors
    /// If the daemon refuses the session.
    pub async fn side_session(&self, name: &str, directory: &Path) -> Result<Session> {
        let mut directories = LocalDirs::default();
        directories.add(name, directory);
        let credentials: Option<Arc<dyn CredentialSource>> = Some(Arc::new(SessionCredentials(self.context.registries.clone())));
        let parts = SessionParts { directories, credentials, contents: self.contents(), ..SessionParts::default() };
        Session::start(&self.buildkit, parts, &Events::none()).await
    }

    /// Returns how the image leaves the daemon.
    pub fn exit(&self) -> Exit {
        self.transport.exit(&self.info, self.context.build.load)
    }

    /// Returns the error of a failed solve in the user's terms. If the connection was cut off, the error says what happened to the
    /// daemon.
    pub async fn failure(&self, status: &Refusal, session: &Session, failed: Option<Failed<'_>>) -> Error {
        match is_cut_off(status) {
            true => self.docker.went_away(status.message()).await,
            false => failure(status, session.local_failure(status.message()), failed),
        }
    }

    /// Returns events that go on to the display and record which steps ran.
    pub fn listen(&self) -> (Events, tokio::task::JoinHandle<Executed>) {
        noted(self.context.events.clone())
    }

    /// Replaces `host-gateway`, which stands for an address that only the daemon knows (buildx `toBuildkitExtraHosts`).
    ///
    /// # Errors
    /// If the daemon does not report its address.
    pub async fn resolve_host_gateway(&self, options: &mut std::collections::HashMap<String, String>) -> Result<()> {
        const WORD: &str = "host-gateway";
        let Some(hosts) = options.get_mut("add-hosts").filter(|hosts| hosts.contains(WORD)) else { return Ok(()) };
        let labels = self.buildkit.worker_labels().await?;
        let address = labels
            .get("org.mobyproject.buildkit.worker.moby.host-gateway-ip")
            .ok_or_else(|| Error::usage(format!("--add-host …={WORD}: this Docker daemon does not report its address")))?;
        *hosts = hosts.replace(WORD, address);
        Ok(())
    }

    /// Returns the reference to save this build under. Returns `None` without a writable cache, for several platforms, or for
    /// another output before Docker 26: that accepts only one output.
    pub fn cache_target(&self) -> Option<ImageRef> {
        let build = self.context.build;
        let can = self.info.api >= SEVERAL_EXPORTS_API || build.outputs.is_empty();
        self.context.cache.usable().and_then(|(session, _)| session.target()).filter(|_| can && build.platforms.len() < 2)
    }

    /// Returns the content stores that the daemon reads through the session. Empty unless layers move as archives.
    pub fn contents(&self) -> ContentSources {
        match self.context.cache.usable() {
            Some((session, _)) if self.transport == LayerTransport::Archive => session.contents(),
            _ => ContentSources::default(),
        }
    }
}

/// Returns events that record which steps ran and go on to these events.
pub fn noted(all: Events) -> (Events, tokio::task::JoinHandle<Executed>) {
    let (events, mut receiver) = Events::channel();
    let listening = tokio::spawn(async move {
        let mut executed = Executed::default();
        while let Some(event) = receiver.recv().await {
            executed.listen(&event);
            all.emit(event);
        }
        executed
    });
    (events, listening)
}

/// Returns the report's entry for the daemon.
pub fn engine_report(info: &EngineInfo, transport: Option<LayerTransport>) -> EngineReport {
    EngineReport {
        version: info.version.clone(),
        store: if info.store == StoreKind::Containerd { output::ImageStore::Containerd } else { output::ImageStore::Graphdriver },
        transport: match transport {
            Some(LayerTransport::Registry) => Transport::Registry,
            Some(LayerTransport::Archive) => Transport::Archive,
            None => Transport::None,
        },
        disk: None,
    }
}

/// Returns facts about an image in the daemon besides its ID. A containerd store may hand over only one image of an index.
///
/// # Errors
/// If the daemon does not answer.
pub async fn had(docker: &Docker, info: &EngineInfo, image: &ImageRef) -> Result<Made> {
    let diff_ids = match info.store {
        StoreKind::Containerd => docker.image_layers(&image.to_string()).await?.unwrap_or_default(),
        StoreKind::GraphDriver => Vec::new(),
    };
    Ok(Made { diff_ids, ..Made::default() })
}
