//! The listener, what is behind it, and what the daemon hands over.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::http::Handler;
use super::pull::{Given, Served, Shelves};
use super::shelf::Shelf;
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

/// An address at which nothing answers yet: what is served there has to be called by it.
pub struct Address {
    listener: TcpListener,
    address: SocketAddr,
    word: String,
}

/// The endpoint while it listens.
pub struct Endpoint {
    address: SocketAddr,
    word: String,
    served: Served,
    reached: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Address {
    /// A free port of 127.0.0.1, and a word that cannot be guessed.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, word: format!("{:032x}", rand::random::<u128>()) })
    }

    /// What a repository of this name is called by the daemon.
    #[must_use]
    pub fn repository(&self, name: &str) -> Repository {
        repository(self.address, &self.word, name)
    }

    /// Serves what is on the shelves, and hands what is pushed to the receiver, if there is one. Blobs on their way lie in
    /// `directory`.
    #[must_use]
    pub fn serve(self, shelves: Vec<Shelf>, receiver: Option<Arc<dyn Receiver>>, directory: PathBuf) -> Endpoint {
        let Self { listener, address, word } = self;
        let served = Served::default();
        let reached = Arc::new(AtomicBool::new(false));
        let shelves = Shelves::new(&word, shelves, served.clone());
        let handler = Arc::new(Handler::new(word.clone(), shelves, receiver, directory, Arc::clone(&reached)));
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
        Endpoint { address, word, served, reached, task }
    }
}

fn repository(address: SocketAddr, word: &str, name: &str) -> Repository {
    Repository { host: RegistryHost::new(address.to_string()), path: format!("{word}/{name}") }
}

impl Endpoint {
    /// An endpoint that only takes. Blobs on their way lie in `directory`.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub async fn start(receiver: Arc<dyn Receiver>, directory: PathBuf) -> io::Result<Self> {
        Ok(Address::bind().await?.serve(Vec::new(), Some(receiver), directory))
    }

    /// Whether someone who knows its word has asked anything.
    #[must_use]
    pub fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Counts what goes out another way.
    #[must_use]
    pub fn tally(&self) -> Served {
        self.served.clone()
    }

    /// The blobs that were pulled from here, with what went out of them.
    #[must_use]
    pub fn served(&self) -> BTreeMap<Digest, Given> {
        self.served.blobs()
    }

    /// What the daemon must push to for the receiver to get it under this name.
    #[must_use]
    pub fn reference(&self, name: &str) -> ImageRef {
        repository(self.address, &self.word, name).tag("image")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}
