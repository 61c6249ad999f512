//! Serves content that the daemon reads through the session: cache images for a daemon that cannot reach this host (`type=local` in
//! BuildKit's terms, `client/solve.go` and `session/content`).
//!
//! The protocol is containerd's content store over gRPC (`api/services/content/v1`), of which hakobi needs only the read part. The
//! daemon requests a blob in pieces of a MiB, one after the other, each with its own call. hakobi keeps the stream open between two
//! pieces, so that it reads and verifies each blob once.

use std::collections::HashMap;
use std::future::Ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncReadExt;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use crate::domain::Digest;
use crate::transfer::ByteStream;

/// The largest part of a blob in one message, in bytes: below gRPC's default limit.
const PART: usize = 256 << 10;

/// The number of blobs whose streams hakobi keeps open between two pieces.
const STREAMS_KEPT: usize = 16;

/// The header that names the store of a call (BuildKit `session/content`, `GRPCHeaderID`).
const STORE_HEADER: &str = "buildkit-attachable-store-id";

/// The prefix of the store's name in that header.
const STORE_PREFIX: &str = "local:";

/// A source of blobs.
#[async_trait]
pub trait ContentSource: Send + Sync + 'static {
    /// Returns the size of a blob, in bytes. Returns `None` if the source does not have it.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, String>;

    /// Returns a blob's bytes from this offset.
    async fn open(&self, digest: &Digest, size: u64, offset: u64) -> Result<ByteStream, String>;

    /// Reports that hakobi sent this number of the blob's bytes.
    fn sent(&self, digest: &Digest, bytes: u64);
}

/// The stores by their names.
pub type ContentSources = HashMap<String, Arc<dyn ContentSource>>;

/// A blob whose stream is open.
struct Reading {
    store: String,
    digest: Digest,
    offset: u64,
    stream: ByteStream,
}

struct Inner {
    sources: ContentSources,
    open: Mutex<Vec<Reading>>,
}

/// The service.
#[derive(Clone)]
pub(super) struct ContentServer(Arc<Inner>);

impl ContentServer {
    pub(super) const METHODS: [&str; 2] =
        ["/containerd.services.content.v1.Content/Info", "/containerd.services.content.v1.Content/Read"];

    pub(super) fn new(sources: ContentSources) -> Self {
        Self(Arc::new(Inner { sources, open: Mutex::default() }))
    }
}

impl Inner {
    fn source<T>(&self, request: &Request<T>) -> Result<(String, Arc<dyn ContentSource>), Status> {
        let name = request.metadata().get(STORE_HEADER).and_then(|name| name.to_str().ok()).unwrap_or_default();
        let name = name.strip_prefix(STORE_PREFIX).unwrap_or(name);
        let source = self.sources.get(name).ok_or_else(|| Status::not_found("unknown content store"))?;
        Ok((name.to_owned(), Arc::clone(source)))
    }

    async fn info(&self, request: Request<messages::InfoRequest>) -> Result<Response<messages::InfoResponse>, Status> {
        let (_, source) = self.source(&request)?;
        let digest = digest(&request.get_ref().digest)?;
        let size = size(&*source, &digest).await?;
        let info = messages::Info { digest: digest.to_string(), size: size.cast_signed() };
        Ok(Response::new(messages::InfoResponse { info: Some(info) }))
    }

    async fn read(self: Arc<Self>, request: Request<messages::ReadContentRequest>) -> Result<Response<Parts>, Status> {
        let (store, source) = self.source(&request)?;
        let asked = request.into_inner();
        let digest = digest(&asked.digest)?;
        let whole = size(&*source, &digest).await?;
        let offset = u64::try_from(asked.offset).ok().filter(|offset| *offset <= whole);
        let offset = offset.ok_or_else(|| Status::out_of_range("the offset is behind the end of the blob"))?;
        // 0 requests all remaining bytes.
        let wanted = u64::try_from(asked.size).map_err(|_| Status::invalid_argument("the size is negative"))?;
        let left = if wanted == 0 { whole - offset } else { wanted.min(whole - offset) };
        let stream = match self.continued(&store, &digest, offset) {
            Some(stream) => stream,
            None => source.open(&digest, whole, offset).await.map_err(Status::unavailable)?,
        };
        let reading = Reading { store, digest, offset, stream };
        let parts = stream::try_unfold((reading, left), move |(mut reading, left)| {
            let (inner, source) = (Arc::clone(&self), Arc::clone(&source));
            async move {
                if left == 0 {
                    inner.keep(reading, whole);
                    return Ok(None);
                }
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(PART);
                let mut data = vec![0; room];
                let read = reading.stream.read_exact(&mut data).await;
                read.map_err(|error| Status::data_loss(format!("failed to read the blob {}: {error}", reading.digest)))?;
                source.sent(&reading.digest, room as u64);
                let part = messages::ReadContentResponse { offset: reading.offset.cast_signed(), data };
                reading.offset += room as u64;
                Ok::<_, Status>(Some((part, (reading, left - room as u64))))
            }
        });
        Ok(Response::new(parts.boxed()))
    }

    /// Returns the open stream at this offset. Returns `None` if there is none.
    fn continued(&self, store: &str, digest: &Digest, offset: u64) -> Option<ByteStream> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open
            .iter()
            .position(|reading| reading.offset == offset && offset > 0 && reading.digest == *digest && reading.store == store)?;
        Some(open.remove(place).stream)
    }

    fn keep(&self, reading: Reading, whole: u64) {
        if reading.offset < whole {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() == STREAMS_KEPT {
                open.remove(0);
            }
            open.push(reading);
        }
    }
}

async fn size(source: &dyn ContentSource, digest: &Digest) -> Result<u64, Status> {
    let size = source.size(digest).await.map_err(Status::unavailable)?;
    size.ok_or_else(|| Status::not_found(format!("the blob {digest} does not exist")))
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument("invalid digest"))
}

type Parts = BoxStream<'static, Result<messages::ReadContentResponse, Status>>;

impl UnaryService<messages::InfoRequest> for ContentServer {
    type Response = messages::InfoResponse;
    type Future = BoxFuture<'static, Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<messages::InfoRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.info(request).await })
    }
}

impl ServerStreamingService<messages::ReadContentRequest> for ContentServer {
    type Response = messages::ReadContentResponse;
    type ResponseStream = Parts;
    type Future = BoxFuture<'static, Result<Response<Parts>, Status>>;

    fn call(&mut self, request: Request<messages::ReadContentRequest>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).read(request))
    }
}

impl NamedService for ContentServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

/// The service that tonic would generate. No crate has only this protocol.
impl tower::Service<http::Request<Body>> for ContentServer {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::Either<
        BoxFuture<'static, Result<Self::Response, Self::Error>>,
        Ready<Result<Self::Response, Self::Error>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        match request.uri().path().rsplit('/').next() {
            Some("Info") => futures::future::Either::Left(Box::pin(async move {
                Ok(Grpc::new(tonic_prost::ProstCodec::default()).unary(service, request).await)
            })),
            Some("Read") => futures::future::Either::Left(Box::pin(async move {
                Ok(Grpc::new(tonic_prost::ProstCodec::default()).server_streaming(service, request).await)
            })),
            _ => futures::future::Either::Right(std::future::ready(Ok(
                Status::unimplemented("this content store is read-only").into_http()
            ))),
        }
    }
}

/// The messages of containerd's `content.proto` that hakobi uses.
mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InfoRequest {
        #[prost(string, tag = "1")]
        pub digest: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InfoResponse {
        #[prost(message, optional, tag = "1")]
        pub info: Option<Info>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Info {
        #[prost(string, tag = "1")]
        pub digest: String,
        #[prost(int64, tag = "2")]
        pub size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ReadContentRequest {
        #[prost(string, tag = "1")]
        pub digest: String,
        #[prost(int64, tag = "2")]
        pub offset: i64,
        #[prost(int64, tag = "3")]
        pub size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ReadContentResponse {
        #[prost(int64, tag = "1")]
        pub offset: i64,
        #[prost(bytes = "vec", tag = "2")]
        pub data: Vec<u8>,
    }
}
