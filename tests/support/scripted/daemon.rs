//! The scripted daemon: its socket, its REST API as far as hakobi uses it, and the connections that are turned over to gRPC.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bollard_buildkit_proto::pb;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tonic::service::Routes;

use super::bridge::BridgeService;
use super::control::ControlService;
use super::faults::Point;
use super::files::{Files, digest};
use super::jobs::{Job, Jobs};
use super::layers::{Layer, Outgoing, Place, Result};
use super::run::{Locals, Solver};
use super::session::{Session, Wanted};
use crate::http_fake::{Answer, answer};

/// A daemon with the containerd image store.
#[derive(Default)]
pub struct Daemon {
    pub solver: Solver,
    pub jobs: Jobs,
    /// By their names.
    pub images: Mutex<HashMap<String, Outgoing>>,
    /// The names of the steps that ran since this was last asked: those that make layers and were not cached.
    pub ran: Mutex<Vec<String>>,
    id: String,
}

/// Local directories by a build's session.
struct OfSession<'a>(&'a Daemon, &'a Job);

#[tonic::async_trait]
impl Locals for OfSession<'_> {
    async fn files(&self, wanted: &Wanted) -> Result<Files> {
        self.0.jobs.session(&self.1.session).await?.files(wanted).await
    }
}

impl Daemon {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { id: format!("{:032x}", rand::random::<u128>()), ..Self::default() })
    }

    /// Solves a graph for a build.
    pub async fn solve(&self, definition: &pb::Definition, job: &Job) -> Result<Vec<Layer>> {
        let told = |vertex: bollard_buildkit_proto::moby::buildkit::v1::Vertex| {
            if vertex.completed.is_some() && !vertex.cached && vertex.error.is_empty() && !vertex.inputs.is_empty() {
                self.ran.lock().unwrap().push(vertex.name.clone());
            }
            job.tell(vertex);
        };
        self.solver.solve(definition, &OfSession(self, job), &told).await
    }

    /// Serves at a socket until the task ends.
    pub fn listen(self: &Arc<Self>, socket: &Path) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).expect("a socket");
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                if daemon.solver.faults.is_gone() {
                    continue;
                }
                let daemon = Arc::clone(&daemon);
                connections.spawn(async move {
                    let served = Arc::clone(&daemon);
                    let service = service_fn(move |request| Arc::clone(&served).serve(request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    tokio::select! {
                        _ = connection => {}
                        () = daemon.solver.faults.cut.notified() => {}
                    }
                });
            }
        })
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> std::result::Result<Answer, Infallible> {
        let path = request.uri().path().to_owned();
        // `/v1.51/info` is `/info`.
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((_, rest)) => format!("/{rest}"),
            None => path,
        };
        Ok(match &*path {
            "/grpc" | "/session" => self.turn_over(&path, request),
            _ => self.rest(request.method().as_str(), &path, request.uri().query().unwrap_or_default()).await,
        })
    }

    /// Turns a connection over: to the services of BuildKit, or to those of the client.
    fn turn_over(self: Arc<Self>, path: &str, mut request: Request<Incoming>) -> Answer {
        if path == "/session"
            && let Err(refused) = self.solver.faults.at(Point::Session, "")
        {
            return answer(500, &[], json!({ "message": refused.message() }).to_string());
        }
        let session = request.headers().get("x-docker-expose-session-uuid").and_then(|id| id.to_str().ok()).map(str::to_owned);
        tokio::spawn(async move {
            let Ok(stream) = hyper::upgrade::on(&mut request).await else { return };
            match session {
                Some(id) => {
                    if let Some(session) = Session::over(stream).await {
                        self.jobs.add_session(id, session);
                    }
                }
                None => {
                    let limit = 64 << 20;
                    let control = ControlServer::new(ControlService(Arc::clone(&self))).max_decoding_message_size(limit);
                    let bridge = LlbBridgeServer::new(BridgeService(Arc::clone(&self))).max_decoding_message_size(limit);
                    let service = TowerToHyperService::new(Routes::new(control).add_service(bridge).prepare());
                    let connection =
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
                    tokio::select! {
                        _ = connection => {}
                        () = self.solver.faults.cut.notified() => {}
                    }
                }
            }
        });
        let mut answer = Response::new(http_body_util::Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "h2c")] {
            answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        answer
    }

    async fn rest(&self, method: &str, path: &str, query: &str) -> Answer {
        let json = |value: Value| answer(200, &[("content-type", "application/json")], value.to_string());
        let name = |path: &str| percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let missing = || answer(404, &[("content-type", "application/json")], r#"{"message":"No such image"}"#);
        match (method, path) {
            (_, "/_ping") => answer(200, &[("api-version", "1.51")], "OK"),
            (_, "/version") => json(json!({
                "Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": super::architecture(),
            })),
            (_, "/info") => json(json!({ "ID": self.id, "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]] })),
            (_, "/images/json") => {
                let images = self.images.lock().unwrap();
                json(images.iter().map(|(name, image)| {
                    json!({
                        "Id": digest(&image.manifest), "ParentId": "", "RepoTags": [name], "RepoDigests": [], "Created": 0, "Size": 0,
                        "SharedSize": 0, "Labels": {}, "Containers": 0,
                    })
                }).collect())
            }
            ("GET", path) if path.starts_with("/distribution/") => {
                let name = name(path.trim_start_matches("/distribution/").trim_end_matches("/json"));
                if let Some(place) = Place::parse(&name) {
                    let _ = self.solver.client.get(place.url("manifests", &place.reference)).send().await;
                }
                missing()
            }
            ("GET", path) if path.ends_with("/json") => {
                let name = name(path.trim_start_matches("/images/").trim_end_matches("/json"));
                let images = self.images.lock().unwrap();
                match images.get(&name).or_else(|| images.values().find(|image| digest(&image.manifest) == name)) {
                    Some(image) => {
                        let layers: Vec<&str> = image.layers.iter().map(Layer::diff_id).collect();
                        json(json!({ "Id": digest(&image.manifest), "RootFS": { "Type": "layers", "Layers": layers } }))
                    }
                    None => missing(),
                }
            }
            ("DELETE", path) => match self.images.lock().unwrap().remove(&name(path.trim_start_matches("/images/"))) {
                Some(_) => json(json!([])),
                None => missing(),
            },
            _ => answer(501, &[], json!({ "message": format!("the model has no {method} {path}?{query}") }).to_string()),
        }
    }
}
