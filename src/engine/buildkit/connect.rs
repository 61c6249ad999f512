//! The gRPC channel to BuildKit in dockerd, and the reverse channel on which the daemon calls hakobi.
//!
//! Up to Docker 29.1 both are HTTP upgrades of the REST API, `/grpc` and `/session`. From 29.2 (API 1.53) these are deprecated.
//! There, gRPC runs directly on the socket (HTTP/2 without TLS, by prior knowledge). The reverse channel runs inside BuildKit's own
//! `Control.Session` stream.

use std::collections::HashMap;
use std::io;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, DiskUsageRequest, PruneRequest, UsageRecord};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::gateway::MESSAGE_LIMIT;
use crate::engine::operations::Operation;
use crate::engine::{Dialer, Stream};
use crate::error::{Error, Result};

/// An item of BuildKit's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedItem {
    /// Whether it is a step's result.
    pub is_result: bool,
    /// Whether it is the content of a cache mount.
    pub is_cache_mount: bool,
    /// What BuildKit says of it: the arguments of the command that made it, the ID of a mount.
    pub description: String,
}

/// The first API version that runs gRPC on the socket itself.
const DIRECT_API: (u32, u32) = (1, 53);

/// The bytes in flight on one stream. File sync sends whole contexts.
const WINDOW: u32 = 4 << 20;

/// The connection to BuildKit.
#[derive(Clone)]
pub struct BuildKit {
    dialer: Dialer,
    channel: Channel,
    direct: bool,
}

impl BuildKit {
    /// Opens the channel as this API version requires.
    ///
    /// # Errors
    /// If the daemon has no BuildKit or does not answer.
    pub async fn connect(dialer: &Dialer, api: (u32, u32)) -> Result<Self> {
        if api >= DIRECT_API {
            match Self::open(dialer, true).await {
                Ok(buildkit) => return Ok(buildkit),
                // A proxy in front of the daemon may support only the older way.
                Err(_) => return Self::open(dialer, false).await,
            }
        }
        Self::open(dialer, false).await
    }

    async fn open(dialer: &Dialer, direct: bool) -> Result<Self> {
        let endpoint = Endpoint::from_static("http://buildkit")
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW);
        let dial = dialer.clone();
        let connector = tower::service_fn(move |_| {
            let dialer = dial.clone();
            async move {
                if direct {
                    dialer.dial().await.map(TokioIo::new)
                } else {
                    upgrade(&dialer, "/grpc", &[]).await.map(TokioIo::new)
                }
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            Error::no_daemon("the Docker daemon does not support BuildKit")
                .because(&error)
                .hint("use Docker 20.10 or later with BuildKit enabled")
        })?;
        Ok(Self { dialer: dialer.clone(), channel, direct })
    }

    /// Returns the channel for BuildKit's services.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Registers an operation of the daemon.
    pub(super) fn begin_operation(&self) -> Operation {
        self.dialer.operations().begin()
    }

    /// Returns the labels of BuildKit's worker.
    ///
    /// # Errors
    /// If BuildKit does not answer.
    pub async fn worker_labels(&self) -> Result<HashMap<String, String>> {
        let request = bollard_buildkit_proto::moby::buildkit::v1::ListWorkersRequest::default();
        let workers = ControlClient::new(self.channel())
            .list_workers(request)
            .await
            .map_err(|error| Error::no_daemon("BuildKit reported no worker").because(&error))?;
        Ok(workers.into_inner().record.into_iter().next().map(|worker| worker.labels).unwrap_or_default())
    }

    /// Returns what BuildKit's cache has.
    ///
    /// # Errors
    /// If BuildKit does not answer.
    pub async fn cached(&self) -> Result<Vec<CachedItem>> {
        let control = ControlClient::new(self.channel());
        let used = control.max_decoding_message_size(MESSAGE_LIMIT).disk_usage(DiskUsageRequest::default()).await;
        let used = used.map_err(|error| Error::no_daemon("BuildKit did not list its cache").because(&error))?;
        let item = |record: UsageRecord| CachedItem {
            is_result: record.record_type == "regular",
            is_cache_mount: record.record_type == "exec.cachemount",
            description: record.description,
        };
        Ok(used.into_inner().record.into_iter().map(item).collect())
    }

    /// Removes what was not used for longest from BuildKit's cache, until the rest has this size in bytes.
    ///
    /// # Errors
    /// If BuildKit does not do it.
    pub async fn prune(&self, keep: u64) -> Result<()> {
        let failed = |error: tonic::Status| Error::no_daemon("BuildKit did not shrink its cache").because(&error);
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        // Older versions know only the first one, as the size to keep.
        let request = PruneRequest { all: true, reserved_space: keep, max_used_space: keep, ..PruneRequest::default() };
        let mut removed = ControlClient::new(self.channel()).prune(request).await.map_err(failed)?.into_inner();
        while removed.message().await.map_err(failed)?.is_some() {}
        Ok(())
    }

    /// Opens the reverse channel with these headers.
    pub(super) async fn session_stream(&self, headers: &[(&'static str, String)]) -> io::Result<Stream> {
        if self.direct { self.tunnel(headers).await } else { upgrade(&self.dialer, "/session", headers).await }
    }

    /// Opens the reverse channel inside a stream of the forward channel.
    async fn tunnel(&self, headers: &[(&'static str, String)]) -> io::Result<Stream> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut from_us, to_us) = tokio::io::split(theirs);
        let (sender, receiver) = mpsc::channel(8);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        for (name, value) in headers {
            let value = value.parse().map_err(io::Error::other)?;
            request
                .metadata_mut()
                .append(name.to_ascii_lowercase().parse::<tonic::metadata::AsciiMetadataKey>().map_err(io::Error::other)?, value);
        }
        tokio::spawn(async move {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(read @ 1..) = from_us.read(&mut buffer).await {
                if sender.send(BytesMessage { data: buffer[..read].to_vec() }).await.is_err() {
                    break;
                }
            }
        });
        let mut control = ControlClient::new(self.channel());
        tokio::spawn(receive(to_us, async move { control.session(request).await }));
        Ok(Box::new(ours))
    }
}

async fn receive(
    mut to_us: tokio::io::WriteHalf<DuplexStream>,
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<BytesMessage>>, tonic::Status>>,
) {
    if let Ok(response) = call.await {
        let mut messages = response.into_inner();
        while let Some(Ok(message)) = messages.next().await {
            if to_us.write_all(&message.data).await.is_err() {
                break;
            }
        }
    }
    let _ = to_us.shutdown().await;
}

/// Asks the daemon to switch the connection to HTTP/2.
async fn upgrade(dialer: &Dialer, path: &str, headers: &[(&'static str, String)]) -> io::Result<Stream> {
    let stream = dialer.dial().await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "h2c")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        request.headers_mut().append(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    let response = client.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(format!("the daemon answered {} to {path}", response.status())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
