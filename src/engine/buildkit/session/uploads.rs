//! Serves streams that the daemon fetches as if from a URL (`http://buildkit-session/ID`): a context on standard input.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::moby::upload::v1 as api;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::transfer::ByteStream;

/// The streams by ID. The daemon can fetch each stream once.
#[derive(Default)]
pub struct Uploads(HashMap<String, ByteStream>);

impl Uploads {
    /// Offers a stream. Returns the URL that the frontend gets as its context.
    pub fn add(&mut self, stream: ByteStream) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let url = format!("http://buildkit-session/{id}");
        self.0.insert(id, stream);
        url
    }
}

pub(super) struct UploadService(Mutex<HashMap<String, ByteStream>>);

impl UploadService {
    pub(super) fn new(uploads: Uploads) -> Self {
        Self(Mutex::new(uploads.0))
    }
}

#[tonic::async_trait]
impl api::upload_server::Upload for UploadService {
    type PullStream = BoxStream<'static, Result<api::BytesMessage, Status>>;

    async fn pull(&self, request: Request<Streaming<api::BytesMessage>>) -> Result<Response<Self::PullStream>, Status> {
        let id = request.metadata().get("urlpath").and_then(|path| path.to_str().ok()).unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let stream = stream.ok_or_else(|| Status::not_found("the stream was already read"))?;
        let messages = ReaderStream::with_capacity(stream, 64 << 10).map(|part| match part {
            Ok(data) => Ok(api::BytesMessage { data: data.to_vec() }),
            Err(error) => Err(Status::unknown(format!("failed to read the context: {error}"))),
        });
        Ok(Response::new(messages.boxed()))
    }
}
