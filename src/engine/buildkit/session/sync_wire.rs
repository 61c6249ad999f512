//! The wire format of file sync: fsutil's packets, with names as bytes.
//!
//! In `stat.proto` names are strings, which Rust's and recent Go's messages require to be UTF-8. Older daemons, like Docker
//! 20.10's, accept all names that Linux accepts. The messages here have the same encoding on the wire.

use futures::stream::BoxStream;
use tonic::Status;

/// A packet that hakobi sends.
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
    /// The mode as Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub(super) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(super) gid: u32,
    #[prost(int64, tag = "5")]
    pub(super) size: i64,
    /// The time of the last change, in nanoseconds since 1970.
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

/// The stream of packets to the daemon.
pub(super) type Packets = BoxStream<'static, Result<SentPacket, Status>>;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard_buildkit_proto::fsutil::types::Stat;
    use prost::Message as _;

    use super::*;
    use bollard_buildkit_proto::fsutil::types::Packet;

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
