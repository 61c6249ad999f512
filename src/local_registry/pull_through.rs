//! Layers that pass from a registry through the endpoint: hakobi reads them once, passes them on to the daemon while they arrive,
//! and saves them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::{Descriptor, Digest};
use crate::registry::{self, Home, Kind};
use crate::store::Blobs;
use crate::transfer::{BlobSource as _, ByteStream, Spool};

/// Layers that a registry has and the store may lack.
#[derive(Clone)]
pub(super) struct PullThrough(Arc<Inner>);

struct Inner {
    blobs: Blobs,
    layers: Mutex<HashMap<Digest, Layer>>,
    /// Why a layer did not pass: the first fault.
    fault: watch::Sender<Option<String>>,
    begun: watch::Sender<Begun>,
}

#[derive(Clone)]
struct Layer {
    size: u64,
    from: Arc<dyn Home>,
    /// The directory for its bytes during the transfer.
    directory: PathBuf,
    coming: Option<Coming>,
    /// Held by the task that starts to read it.
    begins: Arc<tokio::sync::Mutex<()>>,
}

/// Layers that were requested.
#[derive(Default)]
struct Begun {
    layers: HashSet<Digest>,
    /// Whether no more layers will be requested.
    over: bool,
}

/// A layer in transfer.
#[derive(Clone)]
struct Coming {
    spool: Spool,
    /// Becomes true once the layer is saved, or will not be.
    settled: watch::Receiver<bool>,
}

impl PullThrough {
    /// Returns a set without layers that saves to this store.
    pub(super) fn new(blobs: Blobs) -> Self {
        Self(Arc::new(Inner {
            blobs,
            layers: Mutex::default(),
            fault: watch::Sender::default(),
            begun: watch::Sender::default(),
        }))
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<Digest, Layer>> {
        self.0.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self, digest: &Digest) -> Option<Layer> {
        self.layers().get(digest).cloned()
    }

    /// Lets these layers pass from a registry when they are requested. Their bytes are in this directory during the transfer.
    pub(super) fn add(&self, layers: &[Descriptor], from: &Arc<dyn Home>, directory: &Path) {
        let mut known = self.layers();
        for layer in layers {
            let (from, directory) = (Arc::clone(from), directory.to_owned());
            let new = || Layer { size: layer.size, from, directory, coming: None, begins: Arc::default() };
            known.entry(layer.digest.clone()).or_insert_with(new);
        }
    }

    /// Returns the size of a layer that can pass from a registry, or `None`.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.layers().get(digest).map(|layer| layer.size)
    }

    /// Waits until a layer in transfer is saved, or will not be.
    pub(super) async fn settle(&self, digest: &Digest) {
        if let Some(mut coming) = self.layer(digest).and_then(|layer| layer.coming) {
            let _ = coming.settled.wait_for(|settled| *settled).await;
        }
    }

    /// Waits until a layer is requested, and reads it too. Returns `None` if that will not happen, or the layer is already saved.
    pub(super) async fn follow(&self, digest: &Digest) -> Option<ByteStream> {
        let mut begun = self.0.begun.subscribe();
        let asked = begun.wait_for(|begun| begun.over || begun.layers.contains(digest)).await.ok()?.layers.contains(digest);
        let coming = self.layer(digest).filter(|_| asked)?.coming?;
        coming.spool.open(0).await.ok()
    }

    /// Notes that no more layers will be requested, and ends the waiting for them.
    pub(super) fn end(&self) {
        self.0.begun.send_modify(|begun| begun.over = true);
    }

    /// Returns whether every requested layer passed.
    pub(super) fn has_no_fault(&self) -> bool {
        self.0.fault.borrow().is_none()
    }

    /// Waits until a layer does not pass, and returns why.
    pub(super) async fn fault(&self) -> String {
        // This object has the sender, so it exists as long as this future waits.
        let mut fault = self.0.fault.subscribe();
        let fault = fault.wait_for(Option::is_some).await;
        fault.ok().and_then(|fault| fault.clone()).unwrap_or_default()
    }

    /// Opens a layer at an offset. A second reader follows the first transfer. Returns `None` for other blobs.
    ///
    /// # Errors
    /// If the registry does not supply the layer.
    pub(super) async fn open(&self, digest: &Digest, offset: u64) -> registry::Result<Option<ByteStream>> {
        let Some(layer) = self.layer(digest) else { return Ok(None) };
        let coming = {
            let _one_at_a_time = layer.begins.lock().await;
            match self.layer(digest).and_then(|layer| layer.coming) {
                Some(coming) => coming,
                None => self.begin(digest, &layer).await.inspect_err(|error| self.failed(digest, &error.to_string()))?,
            }
        };
        coming.spool.open(offset).await.map(Some).map_err(|error| local(&error))
    }

    async fn begin(&self, digest: &Digest, layer: &Layer) -> registry::Result<Coming> {
        let stream = layer.from.open_blob(digest, Some(layer.size), 0).await?;
        let (writer, spool) = Spool::create(&layer.directory).map_err(|error| local(&error))?;
        let (settled, receiver) = watch::channel(false);
        let coming = Coming { spool: spool.clone(), settled: receiver };
        if let Some(layer) = self.layers().get_mut(digest) {
            layer.coming = Some(coming.clone());
        }
        self.0.begun.send_modify(|begun| {
            begun.layers.insert(digest.clone());
        });
        writer.fill(stream);
        let (this, digest, from) = (self.clone(), digest.clone(), Arc::clone(&layer.from));
        tokio::spawn(async move {
            match spool.identity().await {
                // A fault of the store is reported when the build is saved: the layer is missing then.
                Ok(identity) if identity.digest == digest => {
                    this.0.blobs.store().note_origin(&digest, from.repository());
                    if this.0.blobs.keep(&spool).await.is_ok()
                        && let Some(layer) = this.layers().get_mut(&digest)
                    {
                        // From now on, the layer comes from the store, and its temporary file is removed.
                        layer.coming = None;
                    }
                }
                Ok(_) => this.failed(&digest, "the registry's bytes do not match the digest"),
                Err(error) => this.failed(&digest, &error.to_string()),
            }
            settled.send_replace(true);
        });
        Ok(coming)
    }

    /// Notes a failure. The next reader starts again.
    fn failed(&self, digest: &Digest, why: &str) {
        if let Some(layer) = self.layers().get_mut(digest) {
            layer.coming = None;
        }
        self.0.fault.send_if_modified(|fault| {
            let is_first = fault.is_none();
            fault.get_or_insert_with(|| format!("{digest}: {why}"));
            is_first
        });
    }
}

fn local(error: &std::io::Error) -> registry::Error {
    registry::Error::elsewhere(Kind::Local, "buffer a layer on this host", &error.to_string())
}
