//! The repository of a store: which artifacts and blobs it has, and what a run changes there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use super::artifact::{Artifact, load};
use super::bundle::{Bundle, Changes, NewObject, TAGS, VERSION};
use super::fault::{fault, is_absent};
use super::object_source::ObjectSource;
use super::progress::progress;
use crate::domain::{Digest, Repository};
use crate::registry::{Client, Kind};
use crate::settings::CreateRepository;
use crate::store::{Fault, Name, Object, Pace, Result};
use crate::transfer::ByteStream;

/// How a run uses its repository.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Separates several caches in one repository.
    pub prefix: String,
    /// The image whose artifacts are read and written; `None` for those of all images.
    pub image: Option<String>,
    /// The scope that this run writes.
    pub scope: String,
    /// How to create the repository if it does not exist.
    pub create: Option<CreateRepository>,
    /// Whether the run has found out that it may push to the repository. A registry that denies a pull then has no such repository
    /// yet: GHCR and others do not say so to strangers.
    pub may_push: bool,
}

/// A repository as a run knows it.
pub struct StoreRepository {
    pub client: Client,
    pub options: RegistryOptions,
    pub pace: Pace,
    /// The artifacts that were read, by tag. Each is read once.
    pub artifacts: Mutex<HashMap<String, Arc<OnceCell<Artifact>>>>,
    /// All artifacts of the repository, for a store without an image.
    pub all: OnceCell<Vec<String>>,
    pub state: Mutex<State>,
    /// One save at a time.
    pub saving: tokio::sync::Mutex<()>,
}

/// What a run has changed and found out.
#[derive(Default)]
pub struct State {
    /// What the run changes, by the artifact's tag.
    pub changes: BTreeMap<String, Changes>,
    /// The sizes of blobs that the repository has, in bytes.
    pub sizes: HashMap<Digest, u64>,
    /// Blobs that were removed in this run: the registry may still have them.
    pub removed: HashSet<Digest>,
    /// Blobs that the registry took from another repository.
    pub mounted: HashSet<Digest>,
    /// Repositories that a blob may be mounted from.
    pub origins: HashMap<Digest, Repository>,
}

impl State {
    /// Returns the changes of a scope's artifact.
    pub fn changes_of(&mut self, tag: &str, scope: &str) -> &mut Changes {
        self.changes.entry(tag.to_owned()).or_insert_with(|| Changes::new(scope))
    }
}

impl StoreRepository {
    /// Returns a repository of which nothing is known yet. Sends no request.
    pub fn new(client: Client, options: RegistryOptions, pace: Pace) -> Self {
        Self {
            client: client.without_mirror(),
            options: RegistryOptions { scope: Name::scope(&options.scope), ..options },
            pace,
            artifacts: Mutex::default(),
            all: OnceCell::new(),
            state: Mutex::default(),
            saving: tokio::sync::Mutex::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn image(&self) -> &str {
        self.options.image.as_deref().unwrap_or_default()
    }

    pub fn tag(&self, scope: &str) -> String {
        Bundle::tag(&self.options.prefix, scope, self.image())
    }

    /// Returns the scope whose artifact has an object.
    pub fn scope_of<'a>(&'a self, name: &'a Name) -> &'a str {
        name.scope_part().unwrap_or(&self.options.scope)
    }

    /// Returns the artifact of a tag, which is read once.
    pub async fn artifact(&self, tag: &str, scope: &str) -> Result<Artifact> {
        let cell = {
            let mut artifacts = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(artifacts.entry(tag.to_owned()).or_default())
        };
        let read = cell.get_or_try_init(|| self.load(tag, Bundle::new(&self.options.prefix, scope, self.image())));
        read.await.cloned()
    }

    pub async fn load(&self, tag: &str, empty: Bundle) -> Result<Artifact> {
        match load(&self.client, &self.pace, tag, empty.clone()).await {
            Err(error) if error.fault() == Fault::Denied && self.options.may_push => {
                tracing::debug!(%error, "the repository counts as missing, because a push is allowed");
                Ok(Artifact { digest: None, bundle: Arc::new(empty), is_damaged: false })
            }
            loaded => {
                let loaded = loaded?;
                let mut state = self.state();
                state.sizes.extend(loaded.bundle.blobs.iter().map(|(digest, blob)| (digest.clone(), blob.size)));
                Ok(loaded)
            }
        }
    }

    /// Returns the artifacts that may have an object: that of its scope, or all that were read.
    pub async fn artifacts_of(&self, name: &Name) -> Result<Vec<(String, Arc<Bundle>)>> {
        if self.options.image.is_none() {
            return self.every_artifact().await;
        }
        let scope = self.scope_of(name);
        let tag = self.tag(scope);
        let first = self.artifact(&tag, scope).await?.bundle;
        let mut found = vec![(tag, first)];
        if name.scope_part().is_none() {
            let read = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
            let others = read.iter().filter(|(tag, _)| **tag != found[0].0);
            let others: Vec<_> = others.filter_map(|(tag, cell)| Some((tag.clone(), cell.get()?.bundle.clone()))).collect();
            found.extend(others);
        }
        Ok(found)
    }

    /// Reads all artifacts of the repository that have this store's prefix.
    pub async fn every_artifact(&self) -> Result<Vec<(String, Arc<Bundle>)>> {
        let tags = self
            .all
            .get_or_try_init(|| async {
                match self.client.tags().await {
                    Ok(tags) => Ok(tags.into_iter().filter(|tag| tag.starts_with(TAGS)).collect()),
                    Err(error) if is_absent(&error) => Ok(Vec::new()),
                    Err(error) => Err(fault(&error)),
                }
            })
            .await?;
        let (mut found, mut unread) = (Vec::new(), None);
        for tag in tags {
            let bundle = match self.artifact(tag, "").await {
                Ok(artifact) => artifact.bundle,
                // Another version of hakobi wrote it, perhaps for another prefix.
                Err(error) if error.fault() == Fault::Other => {
                    unread = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if bundle.prefix == self.options.prefix && bundle.is_saved_as(tag) {
                found.push((tag.clone(), bundle));
            }
        }
        if let Some(error) = unread.filter(|_| found.is_empty()) {
            return Err(error);
        }
        Ok(found)
    }

    /// Returns what this run wrote under a name: `Some(None)` if it removed the object.
    pub fn changed(&self, name: &Name) -> Option<Option<NewObject>> {
        self.state().changes.values().find_map(|changes| changes.objects.get(name)).cloned()
    }

    /// Returns a small object, of this run or of an artifact.
    pub async fn object(&self, name: &Name) -> Result<Option<NewObject>> {
        if let Some(changed) = self.changed(name) {
            return Ok(changed);
        }
        for (tag, bundle) in self.artifacts_of(name).await? {
            if let Some(object) = bundle.objects.get(name) {
                self.state().changes_of(&tag, &bundle.scope).used.insert(name.clone());
                return Ok(Some(NewObject { size: object.size, content: object.content.clone() }));
            }
        }
        Ok(None)
    }

    /// Returns whether there is a cache, for `hakobi.json`: it is not an object of its own.
    pub async fn format(&self) -> Result<Option<Bytes>> {
        let own = self.tag(&self.options.scope);
        let written = self.state().changes.get(&own).is_some_and(|changes| !changes.is_empty());
        let exists = match &self.options.image {
            None => !self.every_artifact().await?.is_empty(),
            Some(_) => {
                let artifact = self.artifact(&own, &self.options.scope).await?;
                if artifact.is_damaged && !written {
                    return Ok(Some(Bytes::from_static(b"damaged")));
                }
                artifact.digest.is_some()
            }
        };
        Ok((exists || written).then(|| Bytes::from(format!("{{\"version\":{}}}", VERSION))))
    }

    /// Returns whether a blob counts as missing although the registry has it.
    pub async fn is_removed(&self, digest: &Digest) -> Result<bool> {
        let found = self.artifacts_of(&Name::blob(digest)).await?;
        let state = self.state();
        let is_new = state.changes.values().any(|changes| matches!(changes.blobs.get(digest), Some(Some(_))));
        Ok(state.removed.contains(digest) || !is_new && found.iter().any(|(_, bundle)| bundle.damaged.contains(digest)))
    }

    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        if self.is_removed(digest).await? {
            return Ok(None);
        }
        match self.client.blob_size(digest).await {
            Ok(Some(size)) => {
                let mut state = self.state();
                state.sizes.insert(digest.clone(), size);
                let scope = &self.options.scope;
                state.changes_of(&self.tag(scope), scope).seen.insert(digest.clone(), size);
                Ok(Some(size))
            }
            Ok(None) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if self.options.may_push && matches!(error.kind, Kind::Denied | Kind::Unauthorized) => Ok(None),
            Err(error) => Err(fault(&error)),
        }
    }

    pub async fn open_blob(&self, digest: &Digest, range: Range<u64>) -> Result<Option<ByteStream>> {
        let size = self.state().sizes.get(digest).copied();
        match self.client.open_blob(digest, size, range.start).await {
            Ok(stream) => Ok(Some(Box::pin(stream.take(range.end.saturating_sub(range.start))))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(fault(&error)),
        }
    }

    /// Uploads the bytes of an object as a blob.
    pub async fn upload(&self, object: &Object<'_>) -> Result<()> {
        let from = self.state().origins.get(object.digest()).cloned();
        let upload = async || self.client.upload(&ObjectSource(object), from.as_ref(), progress(&self.pace)).await;
        let uploaded = match upload().await {
            // ECR creates no repository with a push.
            Err(error) if error.kind == Kind::RepositoryMissing && self.create().await? => upload().await,
            uploaded => uploaded,
        };
        let uploaded = uploaded.map_err(|error| fault(&error))?;
        if uploaded.mounted {
            self.state().mounted.insert(uploaded.identity.digest);
        }
        Ok(())
    }

    /// Returns whether the bytes of a blob are right: a registry does not store again what it has, even if that is damaged.
    pub async fn is_whole(&self, digest: &Digest, size: u64) -> bool {
        let Ok(mut stream) = self.client.open_blob(digest, Some(size), 0).await else { return false };
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.is_ok()
    }

    /// Creates the repository, if the run was asked to. Returns whether it is there now.
    pub async fn create(&self) -> Result<bool> {
        let Some(settings) = &self.options.create else { return Ok(false) };
        // The records' tag moves with each save.
        let settings = CreateRepository { immutable_tags: false, ..settings.clone() };
        self.client.push_access(Some(&settings)).await.map(|_| true).map_err(|error| fault(&error))
    }
}
