//! The scripted daemon: its socket, and the connections that switch to gRPC.

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
use serde_json::json;
use tokio::net::UnixListener;
use tonic::service::Routes;

use super::bridge::BridgeService;
use super::control::ControlService;
use super::faults::Point;
use super::files::{Files, digest};
use super::jobs::{Job, Jobs};
use super::layers::{Layer, Outgoing, Result};
use super::rest::rest;
use super::run::{Locals, Solver};
use super::session::{Session, Wanted};
use crate::http_fake::{Answer, answer};

/// The image store of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// The containerd image store, which stores manifests. BuildKit itself pushes the images.
    #[default]
    Containerd,
    /// A graph driver. The config identifies an image, and the daemon pushes it.
    GraphDriver,
}

/// A daemon.
#[derive(Default)]
pub struct Daemon {
    pub solver: Solver,
    pub jobs: Jobs,
    /// The images by their names.
    pub images: Mutex<HashMap<String, Arc<Outgoing>>>,
    /// The names of the steps that ran since the last reset: those that make layers and were not cached.
    pub ran: Mutex<Vec<String>>,
    id: String,
    pub store: StoreKind,
}

/// The local directories of a build's session.
struct OfSession<'a>(&'a Daemon, &'a Job);

#[tonic::async_trait]
impl Locals for OfSession<'_> {
    async fn files(&self, wanted: &Wanted) -> Result<Files> {
        self.0.jobs.session(&self.1.session).await?.files(wanted).await
    }
}

impl Daemon {
    pub fn new(store: StoreKind) -> Arc<Self> {
        Arc::new(Self { id: format!("{:032x}", rand::random::<u128>()), store, ..Self::default() })
    }

    /// Returns the daemon's own ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the ID of an image in this daemon.
    pub fn id_of(&self, image: &Outgoing) -> String {
        match self.store {
            StoreKind::Containerd => digest(&image.manifest),
            StoreKind::GraphDriver => digest(&image.config),
        }
    }

    /// Solves a graph for a build.
    pub async fn solve(&self, definition: &pb::Definition, job: &Job) -> Result<Vec<Layer>> {
        let told = |vertex: bollard_buildkit_proto::moby::buildkit::v1::Vertex| {
            if vertex.completed.is_some()
                && !vertex.cached
                && vertex.error.is_empty()
                && !vertex.inputs.is_empty()
                && !vertex.name.is_empty()
            {
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
        // A client may reuse a connection after the daemon is gone.
        if self.solver.faults.is_gone() {
            return Ok(answer(503, &[], ""));
        }
        let path = request.uri().path().to_owned();
        // `/v1.51/info` means `/info`.
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((_, rest)) => format!("/{rest}"),
            None => path,
        };
        Ok(match &*path {
            "/grpc" | "/session" => self.turn_over(&path, request),
            _ => rest(&self, request.method().as_str(), &path, request.uri().query().unwrap_or_default()).await,
        })
    }

    /// Switches a connection to gRPC: to the services of BuildKit, or to those of the client.
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
}
