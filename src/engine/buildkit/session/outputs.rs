//! Receives the output of exporters: the tar of a root file system, an image archive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::{Request, Response, Status, Streaming};

/// The sink for one exporter's bytes.
pub type OutputSink = Box<dyn AsyncWrite + Send + Unpin>;

/// The sinks by the exporter's place in the request.
#[derive(Default, Clone)]
pub struct Outputs(Arc<Mutex<HashMap<usize, OutputSink>>>);

impl Outputs {
    /// Adds the sink of the exporter at this place.
    pub fn add(&self, exporter: usize, sink: OutputSink) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(exporter, sink);
    }
}

pub(super) struct FileSendService(Outputs);

impl FileSendService {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self(outputs)
    }
}

#[tonic::async_trait]
impl FileSend for FileSendService {
    type DiffCopyStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        // Docker up to 24 has only one exporter and does not name it.
        let exporter = request.metadata().get("buildkit-attachable-exporter-id").and_then(|id| id.to_str().ok());
        let exporter = exporter.and_then(|id| id.parse().ok()).unwrap_or(0);
        let sink = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&exporter);
        let mut sink = sink.ok_or_else(|| Status::not_found(format!("the exporter {exporter} has no destination")))?;
        let mut messages = request.into_inner();
        let failed = |error: std::io::Error| Status::unknown(format!("failed to write the output: {error}"));
        while let Some(message) = messages.next().await {
            sink.write_all(&message?.data).await.map_err(failed)?;
        }
        sink.shutdown().await.map_err(failed)?;
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}
