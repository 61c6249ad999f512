//! Tests Docker 29.2 and later, which no test engine runs: gRPC directly on the socket, and the session inside `Control.Session`.
//! The server here behaves as BuildKit does.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::{Control, ControlServer};
use futures::stream::{BoxStream, Empty};
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

use super::connect::BuildKit;
use super::session::{Session, SessionParts};
use crate::engine::Dialer;
use crate::event::Events;
use crate::settings::{DaemonEndpoint, Secret, SecretSource};

/// The methods that a session offered, and the answer to a request for a secret.
type Told = (Vec<String>, Result<Vec<u8>, Status>);

/// Accepts the session, requests a secret as a build step would, and reports the answer.
struct FakeBuildKit {
    told: mpsc::Sender<Told>,
}

#[tonic::async_trait]
impl Control for FakeBuildKit {
    async fn session(&self, request: Request<Streaming<api::BytesMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let methods = request.metadata().get_all("x-docker-expose-session-grpc-method");
        let methods = methods.iter().filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (mut from_client, mut to_client) = tokio::io::split(theirs);
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if to_client.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                if sender.send(Ok(api::BytesMessage { data: buffer[..read].to_vec() })).await.is_err() {
                    break;
                }
            }
        });
        let told = self.told.clone();
        tokio::spawn(async move {
            let once = Arc::new(Mutex::new(Some(ours)));
            let connector = tower::service_fn(move |_| {
                let once = Arc::clone(&once);
                async move { once.lock().await.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only")) }
            });
            let channel = Endpoint::from_static("http://session").connect_with_connector(connector).await.expect("a channel");
            let request = GetSecretRequest { id: "token".to_owned(), ..GetSecretRequest::default() };
            let answer = SecretsClient::new(channel).get_secret(request).await.map(|response| response.into_inner().data);
            let _ = told.send((methods, answer)).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn list_workers(&self, _: Request<api::ListWorkersRequest>) -> Result<Response<api::ListWorkersResponse>, Status> {
        let labels = [("kind".to_owned(), "fake".to_owned())].into();
        let worker = api::types::WorkerRecord { labels, ..Default::default() };
        Ok(Response::new(api::ListWorkersResponse { record: vec![worker] }))
    }

    type SessionStream = BoxStream<'static, Result<api::BytesMessage, Status>>;
    type PruneStream = Empty<Result<api::UsageRecord, Status>>;
    type StatusStream = Empty<Result<api::StatusResponse, Status>>;
    type ListenBuildHistoryStream = Empty<Result<api::BuildHistoryEvent, Status>>;

    async fn disk_usage(&self, _: Request<api::DiskUsageRequest>) -> Result<Response<api::DiskUsageResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn prune(&self, _: Request<api::PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn solve(&self, _: Request<api::SolveRequest>) -> Result<Response<api::SolveResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn status(&self, _: Request<api::StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        Ok(Response::new(stream::empty()))
    }
    async fn info(&self, _: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn listen_build_history(
        &self,
        _: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn update_build_history(
        &self,
        _: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn from_api_1_53_on_everything_runs_on_the_socket_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (told, mut tells) = mpsc::channel(1);
    // The server accepts only HTTP/2: an upgrade from HTTP/1.1 would fail here.
    let server = tonic::transport::Server::builder().add_service(ControlServer::new(FakeBuildKit { told }));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));

    let endpoint = DaemonEndpoint { url: format!("unix://{}", socket.display()), tls: None, origin: "test".to_owned() };
    let buildkit = BuildKit::connect(&Dialer::new(&endpoint).expect("an address"), (1, 53)).await.expect("a connection");
    assert_eq!(buildkit.worker_labels().await.expect("labels").get("kind").map(String::as_str), Some("fake"));

    let value = folder.path().join("value");
    std::fs::write(&value, "secret").expect("written");
    let secrets = vec![Secret { id: "token".to_owned(), source: SecretSource::File(value) }];
    let parts = SessionParts { secrets, ..SessionParts::default() };
    let _session = Session::start(&buildkit, parts, &Events::none()).await.expect("a session");
    let (methods, answer) = tells.recv().await.expect("the session was opened");
    assert!(methods.iter().any(|method| method == "/moby.buildkit.secrets.v1.Secrets/GetSecret"), "{methods:?}");
    assert_eq!(answer.expect("the secret"), b"secret");
}
