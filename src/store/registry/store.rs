//! The store over a repository.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncReadExt as _;

use super::bundle::{Changes, Content, NewObject};
use super::repository::{RegistryOptions, StoreRepository};
use super::save::save;
use crate::domain::{Digest, Repository, seconds_now};
use crate::registry::Client;
use crate::store::small::part;
use crate::store::{Entry, Error, Fault, Name, Object, ObjectStore, Pace, Result};

use crate::transfer::ByteStream;

/// An object up to this size, in bytes, is in the bundle. A larger one is a blob of its own, read only when it is needed.
const SMALL: u64 = 64 << 10;

/// Objects in a repository of a registry. Cheap to clone.
#[derive(Clone)]
pub struct RegistryStore(Arc<StoreRepository>);

impl std::fmt::Debug for RegistryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryStore({:?})", self.0.client)
    }
}

impl RegistryStore {
    /// Returns the store in this repository. Sends no request. Reports moved bytes to `pace`: see [`crate::store::Paced`].
    #[must_use]
    pub fn new(client: Client, options: RegistryOptions, pace: Pace) -> Self {
        Self(Arc::new(StoreRepository::new(client, options, pace)))
    }
}

#[async_trait]
impl ObjectStore for RegistryStore {
    async fn size(&self, name: &Name) -> Result<Option<u64>> {
        if *name == Name::format() {
            return Ok(self.0.format().await?.map(|bytes| bytes.len() as u64));
        }
        match (self.0.object(name).await?, name.digest()) {
            (Some(object), _) => Ok(Some(object.size)),
            (None, Some(digest)) if self.0.changed(name).is_none() => self.0.blob_size(&digest).await,
            (None, _) => Ok(None),
        }
    }

    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>> {
        if *name == Name::format() {
            return Ok(self.0.format().await?.map(|bytes| part(&bytes, &range)));
        }
        match (self.0.object(name).await?.map(|object| object.content), name.digest()) {
            (Some(Content::Data(bytes)), _) => Ok(Some(part(&bytes, &range))),
            (Some(Content::Blob(digest)), _) => self.0.open_blob(&digest, range).await,
            (None, Some(digest)) if self.0.changed(name).is_none() && !self.0.is_removed(&digest).await? => {
                self.0.open_blob(&digest, range).await
            }
            (None, _) => Ok(None),
        }
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()> {
        if *name == Name::format() {
            return Ok(());
        }
        let scope = self.0.scope_of(name);
        let is_small = object.size() <= SMALL;
        let content = if is_small {
            let broken =
                |error: std::io::Error| Error::new(Fault::Source, format!("failed to read the source of {name}: {error}"));
            let mut bytes = Vec::new();
            object.open().await.map_err(broken)?.read_to_end(&mut bytes).await.map_err(broken)?;
            Content::Data(bytes.into())
        } else {
            let was_damaged = self.0.is_removed(object.digest()).await?;
            self.0.upload(object).await?;
            if was_damaged && !self.0.is_whole(object.digest(), object.size()).await {
                return Ok(());
            }
            Content::Blob(object.digest().clone())
        };
        let mut state = self.0.state();
        state.removed.remove(object.digest());
        if !is_small {
            state.sizes.insert(object.digest().clone(), object.size());
        }
        let changes = state.changes_of(&self.0.tag(scope), scope);
        match name.digest().filter(|_| !is_small) {
            Some(digest) => {
                changes.objects.remove(name);
                changes.blobs.insert(digest, Some(object.size()));
            }
            None => drop(changes.objects.insert(name.clone(), Some(NewObject { size: object.size(), content }))),
        }
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries: BTreeMap<Name, Entry> = BTreeMap::new();
        let mut add = |name: Name, size, written| {
            if name.as_str().starts_with(prefix) {
                entries.insert(name.clone(), Entry { name, size, written });
            }
        };
        let bundles = match &self.0.options.image {
            None => self.0.every_artifact().await?,
            Some(_) => self.0.artifacts_of(&Name::format()).await?,
        };
        for (_, bundle) in &bundles {
            bundle.objects.iter().for_each(|(name, object)| add(name.clone(), object.size, object.written));
            bundle.blobs.iter().for_each(|(digest, blob)| add(Name::blob(digest), blob.size, blob.written));
        }
        let now = seconds_now();
        let changes: Vec<Changes> = self.0.state().changes.values().cloned().collect();
        let mut removed = Vec::new();
        for changes in changes {
            for (name, object) in changes.objects {
                match object {
                    Some(object) => add(name, object.size, now),
                    None => removed.push(name),
                }
            }
            for (digest, size) in changes.blobs {
                match size {
                    Some(size) => add(Name::blob(&digest), size, now),
                    None => removed.push(Name::blob(&digest)),
                }
            }
        }
        removed.iter().for_each(|name| drop(entries.remove(name)));
        Ok(entries.into_values().collect())
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let found = self.0.artifacts_of(name).await?;
        let digest = name.digest();
        {
            let mut state = self.0.state();
            for (tag, bundle) in &found {
                let is_named =
                    bundle.objects.contains_key(name) || digest.as_ref().is_some_and(|digest| bundle.blobs.contains_key(digest));
                let is_new = state.changes.get(tag).is_some_and(|changes| changes.writes(name));
                if is_named || is_new {
                    let changes = state.changes_of(tag, &bundle.scope);
                    changes.objects.insert(name.clone(), None);
                    if let Some(digest) = &digest {
                        changes.seen.remove(digest);
                        changes.blobs.insert(digest.clone(), None);
                    }
                }
            }
            if let Some(digest) = &digest {
                state.removed.insert(digest.clone());
                state.sizes.remove(digest);
            }
        }
        // The blob itself stays in the registry: it may be a layer of the user's images.
        Ok(())
    }

    fn note_origin(&self, digest: &Digest, from: &Repository) {
        self.0.state().origins.insert(digest.clone(), from.clone());
    }

    fn is_mounted(&self, digest: &Digest) -> bool {
        self.0.state().mounted.contains(digest)
    }

    fn note_use(&self, name: &Name) {
        let mut state = self.0.state();
        let scope = &self.0.options.scope;
        let size = name.digest().and_then(|digest| Some((state.sizes.get(&digest).copied()?, digest)));
        let changes = state.changes_of(&self.0.tag(scope), scope);
        changes.used.insert(name.clone());
        if let Some((size, digest)) = size {
            changes.seen.insert(digest, size);
        }
    }

    fn repository(&self) -> Option<&Repository> {
        Some(self.0.client.repository())
    }

    async fn flush(&self) -> Result<()> {
        save(&self.0).await
    }
}
