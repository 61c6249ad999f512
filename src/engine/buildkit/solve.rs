//! One build: `Control.Solve` with its exporters, the status stream beside it, and the gateway in between.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures::StreamExt as _;
use prost::Message as _;
use tokio::task::JoinHandle;

use super::cache_option::CacheOption;
use super::connect::BuildKit;
use super::gateway::{Gateway, Solved};
use super::session::Session;
use super::status;
use crate::debug::Request;
use crate::domain::{ImageRef, Made};
use crate::error::Result;
use crate::event::{Event, Events};

/// Largest message of the control API: status messages carry logs.
const MESSAGE_LIMIT: usize = 64 << 20;

/// How long the status stream may go on after the build: its last messages are on their way.
const STATUS_LINGERS: Duration = Duration::from_secs(3);

/// An exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// `moby`, `tar`, `docker`, `oci`.
    pub kind: String,
    /// `name`, `compression`, …
    pub attributes: BTreeMap<String, String>,
}

impl Export {
    /// The image into the daemon, under these names.
    #[must_use]
    pub fn into_daemon(names: &[String]) -> Self {
        let mut attributes = BTreeMap::new();
        if !names.is_empty() {
            attributes.insert("name".to_owned(), names.join(","));
        }
        Self { kind: "moby".to_owned(), attributes }
    }

    /// The image from BuildKit straight to a registry: the daemon keeps and unpacks nothing of it, and layers that the
    /// registry has do not even come down to be there. Only the containerd store has this exporter, while its `moby` always
    /// unpacks (moby `exporter/wrapper.go`).
    #[must_use]
    pub fn to_registry(name: &ImageRef) -> Self {
        let attributes = [("name", name.to_string()), ("push", "true".to_owned()), ("store", "false".to_owned())];
        Self { kind: "image".to_owned(), attributes: attributes.map(|(key, value)| (key.to_owned(), value)).into() }
    }
}

/// What a build is asked for beside what the gateway does.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// Where the result goes. Docker up to 24 takes one only.
    pub exports: Vec<Export>,
    /// Cache that is written.
    pub cache_exports: Vec<CacheOption>,
    /// What steps may do: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// The platforms that were asked for, if any: BuildKit warns of a result that is for others (`verifier.CheckInvalidPlatforms`).
    pub platform: Option<String>,
}

/// What a build came to.
#[derive(Debug, Clone, Default)]
pub struct SolveOutcome {
    /// `containerimage.digest`, `containerimage.config.digest`, …
    pub exporter: HashMap<String, String>,
}

impl SolveOutcome {
    /// Which image was made, as far as the exporters say.
    #[must_use]
    pub fn made(&self) -> Made {
        let digests = ["containerimage.digest", "containerimage.config.digest"].into_iter();
        let digests = digests.filter_map(|key| self.exporter.get(key)?.parse().ok());
        Made { digests: digests.collect(), diff_ids: Vec::new() }
    }
}

impl BuildKit {
    /// Runs a build: `work` gets its gateway, and what it gives back goes to the exporters.
    ///
    /// # Errors
    /// With the daemon's words if `work` or an exporter fails.
    pub async fn build<F, W>(
        &self,
        session: &Session,
        request: SolveRequest,
        events: &Events,
        work: W,
    ) -> Result<SolveOutcome, tonic::Status>
    where
        W: FnOnce(Gateway) -> F,
        F: Future<Output = Result<Solved, tonic::Status>>,
    {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut control = ControlClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let mut gateway = Gateway::new(self.channel(), &id).map_err(|error| tonic::Status::internal(error.to_string()))?;
        let first = request.exports.first().cloned();
        let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.Control/Solve", 1);
        let solve = control.solve(api::SolveRequest {
            r#ref: id.clone(),
            session: session.id().to_owned(),
            // Docker up to 24 reads the first exporter from these two fields only.
            exporter_deprecated: first.as_ref().map(|export| export.kind.clone()).unwrap_or_default(),
            exporter_attrs_deprecated: first.map(|export| export.attributes.into_iter().collect()).unwrap_or_default(),
            exporters: request
                .exports
                .into_iter()
                .map(|export| api::Exporter { r#type: export.kind, attrs: export.attributes.into_iter().collect() })
                .collect(),
            cache: Some(api::CacheOptions {
                exports: request.cache_exports.into_iter().map(entry).collect(),
                ..api::CacheOptions::default()
            }),
            entitlements: request.entitlements,
            frontend_attrs: request.platform.map(|platform| ("platform".to_owned(), platform)).into_iter().collect(),
            ..api::SolveRequest::default()
        });
        let solve = shown.send(solve, |_| 200, |status| status.code().to_string());
        let mut status = Following(Some(tokio::spawn(follow(self.clone(), id, events.clone()))));
        let bridge = async {
            gateway.ready().await?;
            let result = work(gateway.clone()).await;
            let failure = result.as_ref().err().cloned();
            let returned = gateway.finish(result).await;
            match failure {
                Some(failure) => Err(failure),
                None => returned,
            }
        };
        let (solved, bridged) = {
            let mut solve = std::pin::pin!(solve);
            let mut bridge = std::pin::pin!(bridge);
            tokio::select! {
                // The build ended before the gateway did: it cannot be waited for any longer.
                solved = &mut solve => (solved, Ok(())),
                bridged = &mut bridge => {
                    let solved = if bridged.is_ok() {
                        solve.await
                    } else {
                        // The daemon's own answer is the better error; one that never comes is not waited for.
                        tokio::time::timeout(Duration::from_secs(5), solve).await.unwrap_or_else(|_| Err(tonic::Status::cancelled("")))
                    };
                    (solved, bridged)
                }
            }
        };
        if let Some(status) = status.0.take() {
            linger(status).await;
        }
        match (solved, bridged) {
            (Ok(solved), Ok(())) => Ok(SolveOutcome { exporter: solved.into_inner().exporter_response }),
            (Err(solve), Err(bridge)) if solve.message().is_empty() || solve.code() == tonic::Code::Cancelled => Err(bridge),
            // A frontend's error names its lines of the Dockerfile to the gateway alone.
            (Err(solve), Err(bridge)) if has_source(&bridge) && !has_source(&solve) => Err(bridge),
            (Err(solve), _) => Err(solve),
            (_, Err(bridge)) => Err(bridge),
        }
    }
}

/// The status stream of a build. It ends soon after the build, also if whoever waited for the build stops waiting: a daemon that never
/// ends the stream does not keep the run from going on.
struct Following(Option<JoinHandle<()>>);

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(status) = self.0.take() {
            tokio::spawn(linger(status));
        }
    }
}

/// Waits a little for the last messages, then ends the stream.
async fn linger(mut status: JoinHandle<()>) {
    if tokio::time::timeout(STATUS_LINGERS, &mut status).await.is_err() {
        status.abort();
    }
}

/// Whether an answer says which lines of the user's file it is about (BuildKit's `errdefs.Source`).
fn has_source(status: &tonic::Status) -> bool {
    rpc::Status::decode(status.details())
        .is_ok_and(|status| status.details.iter().any(|detail| detail.type_url.contains("errdefs.Source")))
}

fn entry(option: CacheOption) -> api::CacheOptionsEntry {
    api::CacheOptionsEntry { r#type: option.kind, attrs: option.attributes.into_iter().collect() }
}

async fn follow(buildkit: BuildKit, id: String, events: Events) {
    let mut control = ControlClient::new(buildkit.channel()).max_decoding_message_size(MESSAGE_LIMIT);
    let Ok(response) = control.status(api::StatusRequest { r#ref: id }).await else { return };
    let mut messages = response.into_inner();
    while let Some(Ok(message)) = messages.next().await {
        events.emit(Event::Status(status::convert(message)));
    }
}
