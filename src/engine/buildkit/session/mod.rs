//! The session: it serves the daemon's requests during a build. The daemon calls over the reverse channel, and hakobi is the
//! server.

mod auth;
mod content;
mod expected;
mod files;
mod outputs;
mod secrets;
mod ssh;
mod sync_server;
mod sync_wire;
mod times;
mod uploads;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_check_response,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::SshServer;
use bollard_buildkit_proto::moby::upload::v1::upload_server::UploadServer;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinHandle;
use tonic::service::Routes;

pub use auth::{CredentialSource, Credentials};
pub use content::{ContentSource, ContentSources};
pub use expected::ExpectedFile;
pub use files::LocalDirs;
pub use outputs::{OutputSink, Outputs};
pub use ssh::SshAgents;
pub use times::SentTimes;
pub use uploads::Uploads;

use super::connect::BuildKit;
use crate::build_context::{Difference, Selection, Tree};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::settings::Secret;

/// The bytes that the daemon may have in flight to a session in total.
const CONNECTION_WINDOW: u32 = 256 << 20;

/// The services of a session.
#[derive(Default)]
pub struct SessionParts {
    /// The key of the daemon's copies of local directories. With the same key the daemon requests only changed files.
    pub shared_key: String,
    /// Local directories by the names that sources give them.
    pub directories: LocalDirs,
    /// Registry credentials.
    pub credentials: Option<Arc<dyn CredentialSource>>,
    /// Secrets. hakobi reads them on request.
    pub secrets: Vec<Secret>,
    /// SSH agents.
    pub ssh: SshAgents,
    /// Streams that the daemon fetches from hakobi by URL.
    pub uploads: Uploads,
    /// The sinks of the exporters.
    pub outputs: Outputs,
    /// The content stores for cache imports, by their names.
    pub contents: ContentSources,
}

/// A running session. It ends when it is dropped.
pub struct Session {
    id: String,
    sent: Arc<AtomicU64>,
    failure: files::Failure,
    expected: expected::Expected,
    times: times::Times,
    task: JoinHandle<()>,
}

impl Session {
    /// Opens the reverse channel and serves it.
    ///
    /// # Errors
    /// If the daemon refuses the session.
    pub async fn start(buildkit: &BuildKit, parts: SessionParts, events: &Events) -> Result<Self> {
        let id = format!("{:025x}", rand::random::<u128>() >> 28);
        let mut headers = vec![
            ("X-Docker-Expose-Session-Uuid", id.clone()),
            ("X-Docker-Expose-Session-Name", "hakobi".to_owned()),
            ("X-Docker-Expose-Session-Sharedkey", parts.shared_key.clone()),
        ];
        let sent = Arc::new(AtomicU64::new(0));
        let failure = files::Failure::default();
        let expected = expected::Expected::default();
        let times = times::Times::default();
        let mut methods = vec!["/grpc.health.v1.Health/Check"];
        let mut routes = Routes::new(HealthServer::new(Healthy));
        if !parts.directories.is_empty() {
            methods.push("/moby.filesync.v1.FileSync/DiffCopy");
            let service = files::FileSyncService::new(
                parts.directories,
                Arc::clone(&sent),
                failure.clone(),
                expected.clone(),
                times.clone(),
            );
            routes = routes.add_service(sync_server::FileSyncServer(Arc::new(service)));
        }
        if let Some(credentials) = parts.credentials {
            // hakobi does not offer the token methods: the daemon then fetches tokens itself with these credentials.
            methods.push("/moby.filesync.v1.Auth/Credentials");
            routes = routes.add_service(AuthServer::new(auth::AuthService::new(credentials, events.clone())));
        }
        methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
        routes = routes.add_service(SecretsServer::new(secrets::SecretService::new(parts.secrets)));
        methods.extend(["/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"]);
        routes = routes.add_service(SshServer::new(ssh::SshService::new(parts.ssh)));
        methods.push("/moby.upload.v1.Upload/Pull");
        routes = routes.add_service(UploadServer::new(uploads::UploadService::new(parts.uploads)));
        methods.push("/moby.filesync.v1.FileSend/DiffCopy");
        routes = routes
            .add_service(FileSendServer::new(outputs::FileSendService::new(parts.outputs)).max_decoding_message_size(64 << 20));
        if !parts.contents.is_empty() {
            methods.extend(content::ContentServer::METHODS);
            routes = routes.add_service(content::ContentServer::new(parts.contents));
        }
        headers.extend(methods.into_iter().map(|method| ("X-Docker-Expose-Session-Grpc-Method", method.to_owned())));
        let stream = buildkit
            .session_stream(&headers)
            .await
            .map_err(|error| Error::no_daemon("the Docker daemon refused to open a build session").because(&error))?;
        let service = TowerToHyperService::new(routes.prepare());
        let task = tokio::spawn(async move {
            // The build's error reports a broken session, so hakobi reports nothing here.
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(1000)
                // h2 derives from this how many small frames may wait: the daemon requests each file of a context separately, and
                // all at once. The limit of a single stream stays the same.
                .initial_connection_window_size(CONNECTION_WINDOW)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        Ok(Self { id, sent, failure, expected, times, task })
    }

    /// Returns the ID that solves use for the session.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the number of bytes of local files sent so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Sets the expected trees of local sources, by name and selection. A tree that differs ends its transfer with an error.
    pub fn expect_trees(&self, trees: impl IntoIterator<Item = ((String, Selection), Arc<Tree>)>) {
        self.expected.expect_trees(trees);
    }

    /// Sets the expected digests of the files that the compilation reads.
    pub fn expect_files(&self, files: &[ExpectedFile]) {
        self.expected.expect_files(files);
    }

    /// Stops comparing: from here on hakobi sends local files as they are.
    pub fn expect_nothing(&self) {
        self.expected.expect_nothing();
    }

    /// Sets the times with which hakobi sends local files from here on, instead of those set before. Paths without one are sent with
    /// their own times.
    pub fn send_times(&self, times: Arc<SentTimes>) {
        self.times.choose(times);
    }

    /// Returns the times that were set. Returns `None` if there are none.
    #[must_use]
    pub fn chosen_times(&self) -> Option<Arc<SentTimes>> {
        self.times.chosen()
    }

    /// Returns the times with which hakobi sent local files so far. If it sent a path several times, the latest time counts.
    #[must_use]
    pub fn sent_times(&self) -> SentTimes {
        self.times.sent()
    }

    /// Reports that local files changed, wherever hakobi noticed it.
    pub fn note_moved(&self, difference: &Difference) {
        self.expected.tell(difference);
    }

    /// Returns the first difference between local files and the expected files. Returns `None` if all sent files were the expected
    /// ones.
    #[must_use]
    pub fn moved(&self) -> Option<Difference> {
        self.expected.moved()
    }

    /// Returns why hakobi could not send local files, and a hint, given the daemon's message about a failed build. The daemon's own
    /// message would be vague. Returns `None` if local files are not the reason.
    #[must_use]
    pub fn local_failure(&self, said: &str) -> Option<(String, &'static str)> {
        self.failure.get(said)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service that the daemon calls while a build runs (buildkit `session.monitorHealth`).
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let status = health_check_response::ServingStatus::Serving.into();
        Ok(tonic::Response::new(HealthCheckResponse { status }))
    }

    async fn list(&self, _: tonic::Request<HealthListRequest>) -> Result<tonic::Response<HealthListResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("only health checks are supported"))
    }

    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, tonic::Status>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("only health checks are supported"))
    }
}
