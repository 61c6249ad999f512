//! File sync on the wire: fsutil's packets with names of bytes.
//!
//! In `stat.proto` names are strings, which Rust's and recent Go's messages take for UTF-8; older daemons, like Docker 20.10's, take
//! what Linux takes. What goes out here is the same on the wire.

use std::convert::Infallible;
use std::future::Ready;
use std::task::{Context, Poll};

use bollard_buildkit_proto::fsutil::types::Packet;
use futures::future::{BoxFuture, Either};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::files::{FileSyncService, Packets};

/// What is sent.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SentPacket {
    /// A `PacketType`.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) stat: Option<SentStat>,
    #[prost(uint32, tag = "3")]
    pub(super) id: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) data: Vec<u8>,
}

/// A file's header.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SentStat {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) path: Vec<u8>,
    /// As Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub(super) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(super) gid: u32,
    #[prost(int64, tag = "5")]
    pub(super) size: i64,
    /// In nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub(super) mod_time: i64,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) linkname: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(super) devmajor: i64,
    #[prost(int64, tag = "9")]
    pub(super) devminor: i64,
    #[prost(message, repeated, tag = "10")]
    pub(super) xattrs: Vec<SentXattr>,
}

/// An entry of the map of extended attributes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SentXattr {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

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

/// What tonic would generate for such messages.
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
            _ => Either::Right(std::future::ready(Ok(Status::unimplemented("only DiffCopy is spoken").into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard_buildkit_proto::fsutil::types::Stat;
    use prost::Message as _;

    use super::*;

    #[test]
    fn text_is_the_same_on_the_wire() {
        let xattr = SentXattr { name: b"user.a".to_vec(), value: vec![0, 255] };
        let sent = SentStat {
            path: "ä/b".into(),
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mod_time: -4,
            linkname: b"c".to_vec(),
            devmajor: 5,
            devminor: 6,
            xattrs: vec![xattr],
        };
        let stat = Stat {
            path: "ä/b".to_owned(),
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mod_time: -4,
            linkname: "c".to_owned(),
            devmajor: 5,
            devminor: 6,
            xattrs: HashMap::from([("user.a".to_owned(), vec![0, 255])]),
        };
        let sent = SentPacket { kind: 2, stat: Some(sent), id: 7, data: vec![8] };
        let packet = Packet { r#type: 2, stat: Some(stat), id: 7, data: vec![8] };
        assert_eq!(Packet::decode(&*sent.encode_to_vec()).unwrap(), packet);
        assert_eq!(sent.encode_to_vec(), packet.encode_to_vec());
    }
}
