//! The images of one scope of a store: manifests and blobs by content, and tags as the scope's pointers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::offered::Offered;
use super::pull_through::PullThrough;
use crate::domain::{Descriptor, Digest, ImageRef, RawManifest, Repository};
use crate::registry::{self, Home, Kind, Progress, Put, Source, Uploaded};
use crate::store::{self, Blobs, Fault, Name, read_small};
use crate::transfer::{BlobSource, ByteStream, BytesSource};

/// Largest manifest, in bytes: the limit of registries.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Largest configuration, in bytes, because hakobi reads it without knowing its size. Inline cache makes configurations large.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Largest pointer, in bytes.
const POINTER_LIMIT: u64 = 64 << 10;

/// The version of pointers; one of another version is a miss.
const VERSION: u32 = 1;

/// How many blobs are looked up at once.
const ASKED_AT_ONCE: usize = 32;

/// The manifest that a tag points to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    version: u32,
    media_type: String,
    digest: Digest,
}

/// An image's repository in a scope of a store, like a repository in a registry.
#[derive(Clone)]
pub struct CacheRepository(Arc<Inner>);

struct Inner {
    blobs: Blobs,
    scope: String,
    image: String,
    repository: Repository,
    writable: bool,
    offered: Offered,
    through: PullThrough,
    /// Held while hakobi reads manifests to find further offered blobs.
    looking: Mutex<()>,
}

impl CacheRepository {
    /// Returns the repository of an image in a scope. `repository` is its name at the endpoint.
    #[must_use]
    pub fn new(blobs: Blobs, scope: &str, image: &str, repository: Repository, writable: bool) -> Self {
        Self(Arc::new(Inner {
            through: PullThrough::new(blobs.clone()),
            blobs,
            scope: scope.to_owned(),
            image: image.to_owned(),
            repository,
            writable,
            offered: Offered::default(),
            looking: Mutex::default(),
        }))
    }

    /// Returns the image.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.0.image
    }

    /// Returns the scope.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.0.scope
    }

    /// Returns whether a blob turned out to be damaged.
    pub(super) fn is_damaged(&self, digest: &Digest) -> bool {
        self.0.blobs.damaged().contains(digest)
    }

    fn pointer(&self, tag: &str) -> Name {
        Name::reference(&self.0.scope, &format!("{}:{tag}", self.0.image))
    }

    async fn pointed(&self, tag: &str) -> store::Result<Option<Pointer>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let name = self.pointer(tag);
        let bytes = match read_small(self.0.blobs.store(), &name, POINTER_LIMIT).await {
            Err(error) if error.fault() == Fault::Damaged => Bytes::new(),
            Err(error) => return Err(error),
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
        };
        // A pointer of another version is a miss too, but not damaged.
        if serde_json::from_slice::<Version>(&bytes).is_ok_and(|head| head.version != VERSION) {
            return Ok(None);
        }
        let pointer = serde_json::from_slice::<Pointer>(&bytes).ok();
        match pointer {
            Some(_) => self.0.blobs.note_used(&name),
            None => self.0.blobs.note_unusable(&name),
        }
        Ok(pointer)
    }

    /// Offers an image of this store's layers as long as the endpoint runs. Returns its name.
    pub fn offer(&self, manifest: &RawManifest, config: Bytes) -> ImageRef {
        self.0.offered.hold(config);
        self.0.offered.add(manifest);
        self.0.repository.digest(&manifest.digest())
    }

    /// Offers an image of one layer that exists only in this run. Returns its name.
    pub fn offer_made(&self, manifest: &RawManifest, config: Bytes, layer: Bytes) -> ImageRef {
        self.0.offered.hold(layer);
        self.offer(manifest, config)
    }

    /// Lets layers that the store lacks pass from a registry when the daemon requests them, and saves them. Their bytes are in this
    /// directory during the transfer.
    pub fn pass_through(&self, layers: &[Descriptor], from: &Arc<dyn Home>, directory: &std::path::Path) {
        self.0.through.add(layers, from, directory);
    }

    /// Waits until the daemon requests a layer that passes through, and reads it too. Returns `None` if that will not happen.
    pub async fn follow(&self, digest: &Digest) -> Option<ByteStream> {
        self.0.through.follow(digest).await
    }

    /// Notes that the daemon will request no more layers.
    pub fn passed(&self) {
        self.0.through.end();
    }

    /// Returns whether no layer failed to pass from its registry.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.0.through.has_no_fault()
    }

    /// Waits until a layer fails to pass from its registry, and returns why. Never returns if all pass.
    pub async fn cannot_pass(&self) -> String {
        self.0.through.fault().await
    }

    /// Returns the size of a blob that this repository can serve: from the store, of this run, or from a registry. Returns `None`
    /// if it has no such blob.
    pub(super) async fn size(&self, digest: &Digest) -> registry::Result<Option<u64>> {
        if let Some(held) = self.0.offered.held(digest) {
            return Ok(Some(held.len() as u64));
        }
        let passing = self.0.through.size(digest);
        match self.0.blobs.size(digest).await {
            Ok(stored) => Ok(stored.or(passing)),
            // A blob of a registry does not need the store.
            Err(_) if passing.is_some() => Ok(passing),
            Err(error) => Err(self.error("look for a blob", &error)),
        }
    }

    /// Returns whether a message names an offered manifest or blob.
    #[must_use]
    pub fn is_named_in(&self, message: &str) -> bool {
        let digests = message.match_indices("sha256:").filter_map(|(at, _)| message.get(at..at + 71)?.parse::<Digest>().ok());
        digests.into_iter().any(|digest| self.0.offered.has(&digest))
    }

    /// Returns whether a manifest or blob belongs to this repository: other objects of the store belong to others.
    pub(super) async fn offers(&self, digest: &Digest) -> registry::Result<bool> {
        let offered = &self.0.offered;
        if offered.has(digest) {
            return Ok(true);
        }
        // A daemon that has the manifests below an index from an earlier run requests their layers directly.
        let _one_at_a_time = self.0.looking.lock().await;
        while !offered.has(digest) {
            let Some(child) = offered.unread() else { return Ok(false) };
            if let Err(error) = self.get(&child.to_string()).await {
                offered.put_back(child);
                return Err(self.error(&format!("read a manifest to look for {digest}"), &error));
            }
        }
        Ok(true)
    }

    /// Returns the manifest of a tag or digest, or `None`.
    async fn get(&self, reference: &str) -> store::Result<Option<RawManifest>> {
        let (digest, told) = match reference.parse::<Digest>() {
            Ok(digest) => (digest, None),
            Err(_) => match self.pointed(reference).await? {
                Some(pointer) => (pointer.digest, Some(pointer.media_type)),
                None => return Ok(None),
            },
        };
        if let Some(manifest) = self.0.offered.manifest(&digest) {
            return Ok(Some(manifest));
        }
        let bytes = match self.0.blobs.read(&digest, MANIFEST_LIMIT).await {
            // A miss: whoever makes the same manifest writes it again.
            Err(error) if error.fault() == Fault::Damaged => return Ok(None),
            bytes => bytes?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let Some(media_type) = told.or_else(|| RawManifest::media_type_of(&bytes)) else { return Ok(None) };
        let manifest = RawManifest { media_type, bytes };
        self.0.offered.add(&manifest);
        Ok(Some(manifest))
    }

    fn error(&self, what: &str, error: &store::Error) -> registry::Error {
        let kind = match error.fault() {
            Fault::Denied => Kind::Denied,
            Fault::Missing => Kind::NotFound,
            Fault::Damaged => Kind::Damaged,
            Fault::Unreachable => Kind::Network,
            Fault::Source => Kind::Source,
            Fault::Full | Fault::Other => Kind::Local,
        };
        let cause = match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        failed(kind, what, &cause)
    }

    fn read_only(&self) -> registry::Error {
        registry::Error::elsewhere(Kind::Denied, "write to the cache", &format!("the scope `{}` is read-only", self.0.scope))
    }
}

fn failed(kind: Kind, what: &str, cause: &str) -> registry::Error {
    registry::Error::elsewhere(kind, format!("{what} in the cache"), cause)
}

#[async_trait]
impl Source for CacheRepository {
    fn repository(&self) -> &Repository {
        &self.0.repository
    }

    fn backing(&self) -> Option<&Repository> {
        self.0.blobs.store().repository()
    }

    async fn manifest(&self, reference: &str) -> registry::Result<Option<RawManifest>> {
        self.get(reference).await.map_err(|error| self.error(&format!("read the manifest {reference}"), &error))
    }

    async fn open_blob(&self, digest: &Digest, size: Option<u64>, offset: u64) -> registry::Result<ByteStream> {
        let what = || format!("read the blob {digest}");
        if let Some(held) = self.0.offered.held(digest) {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(held.len());
            return Ok(Box::pin(std::io::Cursor::new(held.slice(start..))));
        }
        // A passing layer is not in the store yet, or only just now.
        if self.0.through.size(digest).is_some()
            && self.0.blobs.size(digest).await.ok().flatten().is_none()
            && let Some(stream) = self.0.through.open(digest, offset).await?
        {
            return Ok(stream);
        }
        if size.is_none() && offset == 0 {
            let read = self.0.blobs.read(digest, CONFIG_LIMIT).await.map_err(|error| self.error(&what(), &error))?;
            let read = read.map(|bytes| Box::pin(std::io::Cursor::new(bytes)) as ByteStream);
            return read.ok_or_else(|| failed(Kind::NotFound, &what(), "it does not exist"));
        }
        let opened = self.0.blobs.open(digest, size, offset).await.map_err(|error| self.error(&what(), &error))?;
        opened.ok_or_else(|| failed(Kind::NotFound, &what(), "it does not exist"))
    }
}

#[async_trait]
impl Home for CacheRepository {
    async fn sizes(&self, digests: &[Digest]) -> registry::Result<HashMap<Digest, u64>> {
        let asked = stream::iter(digests.to_vec())
            .map(|digest| async move {
                self.0.through.settle(&digest).await;
                match self.0.offered.held(&digest) {
                    Some(held) => Ok((Some(held.len() as u64), digest)),
                    None => Ok((self.0.blobs.size(&digest).await?, digest)),
                }
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect::<Vec<store::Result<_>>>()
            .await;
        let sizes = asked.into_iter().collect::<store::Result<Vec<_>>>();
        let sizes = sizes.map_err(|error| self.error("look for blobs", &error))?;
        Ok(sizes.into_iter().filter_map(|(size, digest)| Some((digest, size?))).collect())
    }

    async fn upload(&self, source: &dyn BlobSource, from: Option<&Repository>, progress: Progress) -> registry::Result<Uploaded> {
        if !self.0.writable {
            return Err(self.read_only());
        }
        let identity = source.identity().await.map_err(|error| failed(Kind::Source, "save a blob", &error.to_string()))?;
        if let Some(from) = from {
            self.0.blobs.store().note_origin(&identity.digest, from);
        }
        let saved = self.0.blobs.keep(source).await;
        let new = saved.map_err(|error| self.error(&format!("save the blob {}", identity.digest), &error))?;
        progress(identity.size);
        let mounted = new && self.0.blobs.store().is_mounted(&identity.digest);
        let sent = if new && !mounted { identity.size } else { 0 };
        Ok(Uploaded { identity, mounted, sent })
    }

    async fn put_manifest(&self, manifest: &RawManifest, reference: &str) -> registry::Result<Put> {
        if !self.0.writable {
            return Err(self.read_only());
        }
        let what = format!("save the manifest {reference}");
        let digest = manifest.digest();
        let saved = self.0.blobs.keep(&BytesSource::new(manifest.bytes.clone())).await;
        saved.map_err(|error| self.error(&what, &error))?;
        self.0.offered.add(manifest);
        if reference.parse::<Digest>().is_err() {
            let pointer = Pointer { version: VERSION, media_type: manifest.media_type.clone(), digest };
            let bytes = serde_json::to_vec(&pointer).map_err(|error| failed(Kind::Local, &what, &error.to_string()))?;
            let written = self.0.blobs.store().write(&self.pointer(reference), &BytesSource::new(bytes.into())).await;
            written.map_err(|error| self.error(&what, &error))?;
        }
        Ok(Put::Pushed)
    }
}
