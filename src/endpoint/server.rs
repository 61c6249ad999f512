//! The listener, and what the daemon hands over.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::http::Handler;
use crate::domain::{Digest, ImageRef, RawManifest, RegistryHost, Repository};
use crate::transfer::{Identity, Spool};

/// Takes what the daemon pushes.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// The size of a blob that need not be sent, in bytes.
    async fn has(&self, digest: &Digest) -> Option<u64>;

    /// A blob begins to arrive.
    async fn arriving(&self, blob: Spool);

    /// A blob has arrived whole and is what the daemon says it is.
    async fn arrived(&self, identity: Identity, blob: Spool);

    /// A manifest, under a tag or its digest. What is returned is told to the daemon as its reason.
    async fn manifest(&self, name: &str, reference: &str, manifest: RawManifest) -> Result<(), String>;
}

/// The endpoint while it listens.
pub struct Endpoint {
    address: SocketAddr,
    word: String,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Listens on a free port. Blobs on their way lie in `directory`.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub async fn start(receiver: Arc<dyn Receiver>, directory: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let word = format!("{:032x}", rand::random::<u128>());
        let handler = Arc::new(Handler::new(word.clone(), receiver, directory));
        let task = tokio::spawn(async move {
            // Connections end with the set, and the set with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let handler = Arc::clone(&handler);
                let service = service_fn(move |request| {
                    let handler = Arc::clone(&handler);
                    async move { handler.handle(request).await }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, word, task })
    }

    /// What the daemon must push to for the receiver to get it under this name.
    #[must_use]
    pub fn reference(&self, name: &str) -> ImageRef {
        let host = RegistryHost::new(self.address.to_string());
        Repository { host, path: format!("{}/{name}", self.word) }.tag("image")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}
