//! BuildKit's gateway of a running build (`LLBBridge`): runs the frontend, solves graphs, and ends the build.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use futures::stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use super::compile::compile;
use super::daemon::Daemon;
use super::faults::Point;
use super::files::Kind;
use super::jobs::Job;
use super::layers::Result;
use super::session::Wanted;

#[derive(Clone)]
pub struct BridgeService(pub Arc<Daemon>);

impl BridgeService {
    /// Returns the build of a call.
    async fn job<T>(&self, request: &Request<T>) -> Result<Arc<Job>> {
        let id = request.metadata().get("buildkit-controlapi-buildid").and_then(|id| id.to_str().ok());
        self.0.jobs.find(id.unwrap_or_default()).await
    }

    /// Reads the Dockerfile through the session, and compiles it.
    async fn frontend(&self, request: &api::SolveRequest, job: &Job) -> Result<api::Result> {
        self.0.solver.faults.pass(Point::Compile, &request.frontend).await?;
        if request.frontend != "dockerfile.v0" {
            return Err(Status::unimplemented(format!("the model has no frontend {}", request.frontend)));
        }
        let options = &request.frontend_opt;
        let name = options.get("filename").cloned().unwrap_or_else(|| "Dockerfile".to_owned());
        let session = self.0.jobs.session(&job.session).await?;
        let include = vec![name.clone(), format!("{name}.dockerignore"), ".dockerignore".to_owned()];
        let files = session.files(&Wanted { name: "dockerfile".to_owned(), include, ..Wanted::default() }).await?;
        let text = match files.0.get(&name).map(|node| &node.kind) {
            Some(Kind::File(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => return Err(Status::unknown(format!("failed to read dockerfile: open {name}: no such file or directory"))),
        };
        let target = options.get("target").map(String::as_str);
        let compiled = compile(&self.0.solver.client, &text, target, &job.session).await?;
        let mut definition = compiled.definition;
        if options.contains_key("no-cache") {
            definition.metadata.values_mut().for_each(|metadata| metadata.ignore_cache = true);
        }
        let metadata = [("containerimage.config".to_owned(), compiled.config)].into();
        Ok(api::Result { metadata, ..self.reference(definition, job) })
    }

    /// Returns a reference to a graph, which is solved only when needed.
    fn reference(&self, definition: bollard_buildkit_proto::pb::Definition, job: &Job) -> api::Result {
        // The empty image has no reference.
        let id = if definition.def.is_empty() { String::new() } else { format!("{:025x}", rand::random::<u128>() >> 28) };
        let def = (!definition.def.is_empty()).then(|| definition.clone());
        job.solved.lock().unwrap().insert(id.clone(), definition);
        api::Result { result: Some(api::result::Result::Ref(api::Ref { id, def })), ..api::Result::default() }
    }
}

#[tonic::async_trait]
impl LlbBridge for BridgeService {
    async fn ping(&self, request: Request<api::PingRequest>) -> Result<Response<api::PongResponse>> {
        self.job(&request).await?;
        Ok(Response::new(api::PongResponse::default()))
    }

    async fn solve(&self, request: Request<api::SolveRequest>) -> Result<Response<api::SolveResponse>> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let result = if request.frontend.is_empty() {
            let definition = request.definition.clone().unwrap_or_default();
            let names = definition.metadata.values().filter_map(|metadata| metadata.description.get("llb.customname"));
            self.0.solver.faults.pass(Point::Solve, &names.cloned().collect::<Vec<_>>().join("; ")).await?;
            if request.evaluate {
                self.0.solve(&definition, &job).await?;
            }
            self.reference(definition, &job)
        } else {
            self.frontend(&request, &job).await?
        };
        Ok(Response::new(api::SolveResponse { result: Some(result), ..api::SolveResponse::default() }))
    }

    async fn r#return(&self, request: Request<api::ReturnRequest>) -> Result<Response<api::ReturnResponse>> {
        let job = self.job(&request).await?;
        let api::ReturnRequest { result, error } = request.into_inner();
        let returned = match error {
            Some(error) => Err(error),
            None => Ok(result.unwrap_or_default()),
        };
        if let Some(waits) = job.returned.lock().unwrap().take() {
            let _ = waits.send(returned);
        }
        self.0.solver.faults.pass(Point::Return, "").await?;
        Ok(Response::new(api::ReturnResponse {}))
    }

    type ExecProcessStream = Empty<Result<api::ExecMessage>>;

    async fn resolve_image_config(
        &self,
        _: Request<api::ResolveImageConfigRequest>,
    ) -> Result<Response<api::ResolveImageConfigResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn resolve_source_meta(
        &self,
        _: Request<api::ResolveSourceMetaRequest>,
    ) -> Result<Response<api::ResolveSourceMetaResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn read_file(&self, _: Request<api::ReadFileRequest>) -> Result<Response<api::ReadFileResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn read_dir(&self, _: Request<api::ReadDirRequest>) -> Result<Response<api::ReadDirResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn stat_file(&self, _: Request<api::StatFileRequest>) -> Result<Response<api::StatFileResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn evaluate(&self, _: Request<api::EvaluateRequest>) -> Result<Response<api::EvaluateResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn inputs(&self, _: Request<api::InputsRequest>) -> Result<Response<api::InputsResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn new_container(&self, _: Request<api::NewContainerRequest>) -> Result<Response<api::NewContainerResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn release_container(
        &self,
        _: Request<api::ReleaseContainerRequest>,
    ) -> Result<Response<api::ReleaseContainerResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn exec_process(&self, _: Request<Streaming<api::ExecMessage>>) -> Result<Response<Self::ExecProcessStream>> {
        Err(Status::unimplemented(""))
    }
    async fn read_file_container(&self, _: Request<api::ReadFileRequest>) -> Result<Response<api::ReadFileResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn read_dir_container(&self, _: Request<api::ReadDirRequest>) -> Result<Response<api::ReadDirResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn stat_file_container(&self, _: Request<api::StatFileRequest>) -> Result<Response<api::StatFileResponse>> {
        Err(Status::unimplemented(""))
    }
    async fn warn(&self, _: Request<api::WarnRequest>) -> Result<Response<api::WarnResponse>> {
        Err(Status::unimplemented(""))
    }
}
