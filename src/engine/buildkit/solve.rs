//! Runs one build: `Control.Solve` with its exporters, the status stream, and the gateway.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures::StreamExt as _;
use prost::Message as _;
use tokio::task::JoinHandle;

use super::cache_option::CacheOption;
use super::connect::BuildKit;
use super::gateway::{Gateway, MESSAGE_LIMIT, Solved};
use super::session::Session;
use super::status;
use crate::debug::Request;
use crate::domain::{ImageRef, Made};
use crate::engine::operations::Operation;
use crate::error::Result;
use crate::event::{Event, Events};

/// The time that hakobi waits for the last messages of the status stream after the build.
const STATUS_LINGERS: Duration = Duration::from_secs(3);

/// An exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The kind: `moby`, `tar`, `docker`, `oci`.
    pub kind: String,
    /// The attributes: `name`, `compression`, …
    pub attributes: BTreeMap<String, String>,
}

impl Export {
    /// Returns the exporter that stores the image in the daemon, under these names.
    #[must_use]
    pub fn into_daemon(names: &[String]) -> Self {
        let mut attributes = BTreeMap::new();
        if !names.is_empty() {
            attributes.insert("name".to_owned(), names.join(","));
        }
        Self { kind: "moby".to_owned(), attributes }
    }

    /// Returns the exporter that pushes the image from BuildKit directly to a registry. The daemon neither stores nor unpacks the
    /// image, and does not download layers that the registry has. Only the containerd store has this exporter, while its `moby`
    /// exporter always unpacks (moby `exporter/wrapper.go`).
    #[must_use]
    pub fn to_registry(name: &ImageRef) -> Self {
        let attributes = [("name", name.to_string()), ("push", "true".to_owned()), ("store", "false".to_owned())];
        Self { kind: "image".to_owned(), attributes: attributes.map(|(key, value)| (key.to_owned(), value)).into() }
    }
}

/// The inputs of a build apart from the gateway's calls.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// The exporters of the result. Docker up to 24 accepts only one.
    pub exports: Vec<Export>,
    /// The caches that BuildKit writes.
    pub cache_exports: Vec<CacheOption>,
    /// The permissions of steps: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// The requested platforms, if any: BuildKit warns if the result is for others (`verifier.CheckInvalidPlatforms`).
    pub platform: Option<String>,
}

/// The result of a build.
#[derive(Debug, Clone, Default)]
pub struct SolveOutcome {
    /// The exporters' answer: `containerimage.digest`, `containerimage.config.digest`, …
    pub exporter: HashMap<String, String>,
}

impl SolveOutcome {
    /// Returns the digests of the image that the exporters report.
    #[must_use]
    pub fn made(&self) -> Made {
        let digests = ["containerimage.digest", "containerimage.config.digest"].into_iter();
        let digests = digests.filter_map(|key| self.exporter.get(key)?.parse().ok());
        Made { digests: digests.collect(), diff_ids: Vec::new() }
    }
}

impl BuildKit {
    /// Runs a build: `work` gets its gateway, and the exporters get the result of `work`.
    ///
    /// # Errors
    /// The daemon's error if `work` or an exporter fails.
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
            // Docker up to 24 reads the first exporter only from these two fields.
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
        // The stream ends when BuildKit has discarded the build, after its exporters (BuildKit `llbsolver.Solve`).
        let operation = self.begin_operation();
        let mut status = Following(Some(tokio::spawn(follow(self.clone(), id, events.clone(), operation))));
        // The daemon may end the build before it answers the gateway's last call, so this error is known earlier.
        let failure = OnceLock::new();
        let bridge = async {
            gateway.ready().await?;
            let result = work(gateway.clone()).await;
            if let Err(error) = &result {
                let _ = failure.set(error.clone());
            }
            let returned = gateway.finish(result).await;
            failure.get().cloned().map_or(returned, Err)
        };
        let (solved, bridged) = {
            let mut solve = std::pin::pin!(solve);
            let mut bridge = std::pin::pin!(bridge);
            tokio::select! {
                // The build ended before the gateway did, so hakobi cannot wait for the gateway any longer.
                solved = &mut solve => (solved, failure.get().cloned().map_or(Ok(()), Err)),
                bridged = &mut bridge => {
                    let solved = if bridged.is_ok() {
                        solve.await
                    } else {
                        // The daemon's own answer is the better error, but hakobi does not wait long for it.
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
            // Only the gateway's error contains the frontend's lines of the Dockerfile.
            (Err(solve), Err(bridge)) if has_source(&bridge) && !has_source(&solve) => Err(bridge),
            (Err(solve), _) => Err(solve),
            (_, Err(bridge)) => Err(bridge),
        }
    }
}

/// The status stream of a build. It ends soon after the build, even if the caller stops waiting for the build. A daemon that never
/// ends the stream does not block the run.
struct Following(Option<JoinHandle<()>>);

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(status) = self.0.take() {
            tokio::spawn(linger(status));
        }
    }
}

/// Waits a little for the last messages and then ends the stream.
async fn linger(mut status: JoinHandle<()>) {
    if tokio::time::timeout(STATUS_LINGERS, &mut status).await.is_err() {
        status.abort();
    }
}

/// Returns whether an error names the lines of the user's file (BuildKit's `errdefs.Source`).
fn has_source(status: &tonic::Status) -> bool {
    rpc::Status::decode(status.details())
        .is_ok_and(|status| status.details.iter().any(|detail| detail.type_url.contains("errdefs.Source")))
}

fn entry(option: CacheOption) -> api::CacheOptionsEntry {
    api::CacheOptionsEntry { r#type: option.kind, attrs: option.attributes.into_iter().collect() }
}

async fn follow(buildkit: BuildKit, id: String, events: Events, _operation: Operation) {
    let mut control = ControlClient::new(buildkit.channel()).max_decoding_message_size(MESSAGE_LIMIT);
    let Ok(response) = control.status(api::StatusRequest { r#ref: id }).await else { return };
    let mut messages = response.into_inner();
    while let Some(Ok(message)) = messages.next().await {
        events.emit(Event::Status(status::convert(message)));
    }
}
