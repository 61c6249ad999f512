//! The file sync service as a gRPC server, with the messages of [`super::sync_wire`].

use std::convert::Infallible;
use std::future::Ready;
use std::task::{Context, Poll};

use bollard_buildkit_proto::fsutil::types::Packet;
use futures::future::{BoxFuture, Either};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::files::FileSyncService;
use super::sync_wire::{Packets, SentPacket};

/// The service.
#[derive(Clone)]
pub(super) struct FileSyncServer(pub(super) std::sync::Arc<FileSyncService>);

impl StreamingService<Packet> for FileSyncServer {
    type Response = SentPacket;
    type ResponseStream = Packets;
    type Future = BoxFuture<'static, Result<Response<Packets>, Status>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let answer = self.0.diff_copy(request);
        Box::pin(async move { answer })
    }
}

impl NamedService for FileSyncServer {
    const NAME: &'static str = "moby.filesync.v1.FileSync";
}

/// The service that tonic would generate for these messages.
impl tower::Service<http::Request<Body>> for FileSyncServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Result<Self::Response, Infallible>>, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        match request.uri().path().rsplit('/').next() {
            Some("DiffCopy") => Either::Left(Box::pin(async move {
                Ok(Grpc::new(tonic_prost::ProstCodec::default()).streaming(service, request).await)
            })),
            _ => Either::Right(std::future::ready(Ok(Status::unimplemented("only DiffCopy is supported").into_http()))),
        }
    }
}
