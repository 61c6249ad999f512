//! BuildKit's `Control` service: runs a build from its start to its exporters.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, Empty};
use tonic::{Request, Response, Status, Streaming};

use super::daemon::Daemon;
use super::faults::Point;
use super::files::digest;
use super::jobs::Job;
use super::layers::{self, Layer, Outgoing, Result};

#[derive(Clone)]
pub struct ControlService(pub Arc<Daemon>);

impl ControlService {
    /// Waits for the client's result of the build, and passes it to the exporters.
    async fn run(&self, request: api::SolveRequest) -> Result<HashMap<String, String>> {
        let (job, returned) = self.0.jobs.begin(&request.r#ref, &request.session);
        let returned = returned.await.map_err(|_| Status::cancelled("context canceled"))?;
        let result = returned.map_err(|error| Status::new(tonic::Code::from_i32(error.code), error.message))?;
        let id = match result.result {
            Some(frontend::result::Result::Ref(reference)) => reference.id,
            _ => return Err(Status::unimplemented("the model has images of one platform")),
        };
        let definition = job.solved.lock().unwrap().get(&id).cloned();
        let layers = match definition {
            Some(definition) => self.0.solve(&definition, &job).await?,
            None => Vec::new(),
        };
        let config = result.metadata.get("containerimage.config").cloned().unwrap_or_else(|| b"{}".to_vec());
        let mut response = HashMap::new();
        for (place, exporter) in request.exporters.iter().enumerate() {
            self.0.solver.faults.pass(Point::Export, &exporter.r#type).await?;
            response.extend(self.export(place, exporter, &config, &layers, &job).await?);
        }
        Ok(response)
    }

    async fn export(
        &self,
        place: usize,
        exporter: &api::Exporter,
        config: &[u8],
        layers: &[Layer],
        job: &Job,
    ) -> Result<HashMap<String, String>> {
        let client = &self.0.solver.client;
        if exporter.r#type == "tar" {
            let files = layers::files(client, layers).await?;
            self.0.jobs.session(&job.session).await?.send(place, files.tar()).await?;
            return Ok(HashMap::new());
        }
        let now = jiff::Timestamp::now().to_string();
        let image = Arc::new(Outgoing::new(config, layers.to_vec(), &now)?);
        let response = [
            ("containerimage.digest".to_owned(), self.0.id_of(&image)),
            ("containerimage.config.digest".to_owned(), digest(&image.config)),
        ];
        let names = exporter.attrs.get("name").map(|names| names.split(',').map(str::to_owned).collect::<Vec<_>>());
        for name in names.unwrap_or_default() {
            match (&*exporter.r#type, exporter.attrs.get("push").map(String::as_str)) {
                ("image", Some("true")) => image.push(client, &name).await?,
                ("moby", _) => {
                    // The daemon unpacks an image that it loads.
                    layers::files(client, &image.layers).await?;
                    self.0.images.lock().unwrap().insert(name, Arc::clone(&image));
                }
                (kind, _) => return Err(Status::unimplemented(format!("the model has no exporter {kind}"))),
            }
        }
        Ok(response.into())
    }
}

/// Ends a build when it is dropped.
struct Ending {
    daemon: Arc<Daemon>,
    id: String,
    /// The kinds of the build's exporters.
    kinds: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.daemon.solver.faults.at(Point::End, &self.kinds).is_ok() {
            self.daemon.jobs.end(&self.id);
        }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn solve(&self, request: Request<api::SolveRequest>) -> Result<Response<api::SolveResponse>> {
        let request = request.into_inner();
        // The value also ends the build if the client cancels the call.
        let kinds = request.exporters.iter().map(|exporter| &*exporter.r#type).collect::<Vec<_>>().join(" ");
        let _ending = Ending { daemon: Arc::clone(&self.0), id: request.r#ref.clone(), kinds };
        Ok(Response::new(api::SolveResponse { exporter_response: self.run(request).await? }))
    }

    async fn status(&self, request: Request<api::StatusRequest>) -> Result<Response<Self::StatusStream>> {
        let log = self.0.jobs.log(&request.into_inner().r#ref);
        let entries = stream::unfold(0, move |place| {
            let log = Arc::clone(&log);
            async move {
                let vertexes = vec![log.entry(place).await?];
                Some((Ok(api::StatusResponse { vertexes, ..api::StatusResponse::default() }), place + 1))
            }
        });
        Ok(Response::new(entries.boxed()))
    }

    async fn list_workers(&self, _: Request<api::ListWorkersRequest>) -> Result<Response<api::ListWorkersResponse>> {
        Ok(Response::new(api::ListWorkersResponse { record: vec![api::types::WorkerRecord::default()] }))
    }

    type StatusStream = BoxStream<'static, Result<api::StatusResponse>>;
    type SessionStream = Empty<Result<api::BytesMessage>>;
    type PruneStream = Empty<Result<api::UsageRecord>>;
    type ListenBuildHistoryStream = Empty<Result<api::BuildHistoryEvent>>;

    async fn session(&self, _: Request<Streaming<api::BytesMessage>>) -> Result<Response<Self::SessionStream>> {
        Err(Status::unimplemented("sessions are upgrades of the REST API here"))
    }
    async fn disk_usage(&self, _: Request<api::DiskUsageRequest>) -> Result<Response<api::DiskUsageResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn prune(&self, _: Request<api::PruneRequest>) -> Result<Response<Self::PruneStream>> {
        Err(Status::unimplemented(""))
    }
    async fn info(&self, _: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn listen_build_history(
        &self,
        _: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>> {
        Err(Status::unimplemented(""))
    }
    async fn update_build_history(
        &self,
        _: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>> {
        Err(Status::unimplemented(""))
    }
}
