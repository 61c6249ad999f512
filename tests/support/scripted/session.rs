//! The daemon's side of the session, in which hakobi is the server. Local directories arrive by fsutil's protocol, and exporters
//! write by `FileSend`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use futures::StreamExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::files::{Files, Kind, Node};
use super::layers::Result;

/// The request for a local directory.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub name: String,
    pub follow: Vec<String>,
    pub include: Vec<String>,
}

/// A session that hakobi opened.
#[derive(Clone)]
pub struct Session(Channel);

impl Session {
    /// Starts HTTP/2 on a connection that was upgraded.
    pub async fn over<S>(stream: S) -> Option<Self>
    where
        S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let once = Arc::new(Mutex::new(Some(stream)));
        let connector = tower::service_fn(move |_| {
            let once = Arc::clone(&once);
            async move { once.lock().await.take().ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        Endpoint::from_static("http://session").connect_with_connector(connector).await.ok().map(Self)
    }

    /// Returns the files of a local directory: first the list of paths, then each file.
    pub async fn files(&self, wanted: &Wanted) -> Result<Files> {
        let (sender, receiver) = mpsc::channel(64);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        let mut add = |name: &'static str, values: &[String]| {
            for value in values {
                request.metadata_mut().append(name, value.parse().unwrap());
            }
        };
        add("dir-name", std::slice::from_ref(&wanted.name));
        add("followpaths", &wanted.follow);
        add("include-patterns", &wanted.include);
        let mut packets = FileSyncClient::new(self.0.clone()).diff_copy(request).await?.into_inner();
        let packet = |kind: PacketType, id| Packet { r#type: kind.into(), id, ..Packet::default() };
        let gone = |_| Status::unavailable("the session is gone");
        let (mut files, mut open) = (Files::default(), BTreeMap::new());
        let (mut number, mut is_listed) = (0, false);
        while let Some(received) = packets.next().await {
            let received = received?;
            match PacketType::try_from(received.r#type) {
                Ok(PacketType::PacketStat) => match received.stat {
                    Some(stat) => {
                        const DIRECTORY: u32 = 1 << 31;
                        let modified = stat.mod_time.div_euclid(1_000_000_000);
                        let is_directory = stat.mode & DIRECTORY != 0;
                        let kind = if is_directory { Kind::Directory } else { Kind::File(Vec::new()) };
                        files.0.insert(stat.path.clone(), Node { kind, mode: stat.mode & 0o777, modified });
                        if !is_directory {
                            open.insert(number, stat.path);
                            sender.send(packet(PacketType::PacketReq, number)).await.map_err(gone)?;
                        }
                        number += 1;
                    }
                    None => is_listed = true,
                },
                Ok(PacketType::PacketData) if received.data.is_empty() => drop(open.remove(&received.id)),
                Ok(PacketType::PacketData) => {
                    let node = open.get(&received.id).and_then(|path| files.0.get_mut(path));
                    if let Some(Node { kind: Kind::File(content), .. }) = node {
                        content.extend(received.data);
                    }
                }
                Ok(PacketType::PacketErr) => {
                    let why = String::from_utf8_lossy(&received.data).into_owned();
                    return Err(Status::unknown(format!("error from sender: {why}")));
                }
                Ok(PacketType::PacketFin) => return Ok(files),
                _ => return Err(Status::internal("a packet of no kind")),
            }
            if is_listed && open.is_empty() {
                is_listed = false;
                sender.send(packet(PacketType::PacketFin, 0)).await.map_err(gone)?;
            }
        }
        Err(Status::unavailable("the session ended while files came"))
    }

    /// Writes the output of an exporter.
    pub async fn send(&self, exporter: usize, bytes: Vec<u8>) -> Result<()> {
        let parts: Vec<_> = bytes.chunks(32 << 10).map(|part| BytesMessage { data: part.to_vec() }).collect();
        let mut request = tonic::Request::new(futures::stream::iter(parts));
        request.metadata_mut().insert("buildkit-attachable-exporter-id", exporter.to_string().parse().unwrap());
        let mut answers = FileSendClient::new(self.0.clone()).diff_copy(request).await?.into_inner();
        while answers.next().await.transpose()?.is_some() {}
        Ok(())
    }
}
