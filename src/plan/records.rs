//! The records of a store: written to the own scope, read from it and its fallbacks.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Serialize, de::DeserializeOwned};

use super::record::{decode, encode};
use crate::domain::StepKey;
use crate::store::{Blobs, Error, Fault, Name, Result, read_small};
use crate::transfer::BytesSource;

/// Largest record read, in bytes, as it is kept and as it is meant.
const LIMIT: u64 = 64 << 20;

/// Records asked for at once.
const AT_ONCE: usize = 32;

/// The records that a build may use, and where it writes its own.
#[derive(Debug, Clone)]
pub struct Records {
    blobs: Blobs,
    /// The own scope first.
    scopes: Vec<String>,
}

impl Records {
    /// Those of these scopes, the own one first.
    #[must_use]
    pub fn new(blobs: Blobs, scopes: Vec<String>) -> Self {
        Self { blobs, scopes }
    }

    /// The records of these keys, of the first scope that has each.
    ///
    /// # Errors
    /// If the store cannot be read; what is not there, or cannot be understood, is a miss.
    pub async fn read<T: DeserializeOwned + Send>(&self, keys: &[StepKey]) -> Result<HashMap<StepKey, T>> {
        let read = stream::iter(keys.to_vec()).map(|key| async move { Ok((self.one(&key).await?, key)) });
        let read: Vec<(Option<T>, StepKey)> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(read.into_iter().filter_map(|(record, key)| Some((key, record?))).collect())
    }

    async fn one<T: DeserializeOwned>(&self, key: &StepKey) -> Result<Option<T>> {
        for scope in &self.scopes {
            let Some(bytes) = read_small(self.blobs.store(), &Name::step(scope, key), LIMIT).await? else { continue };
            let mut plain = Vec::new();
            if GzDecoder::new(&bytes[..]).take(LIMIT).read_to_end(&mut plain).is_ok()
                && let Some(record) = decode(&plain)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Writes records to the own scope. What they name must be in the store already.
    ///
    /// # Errors
    /// If the store does not take one.
    pub async fn write<T: Serialize>(&self, records: impl IntoIterator<Item = (StepKey, T)>) -> Result<()> {
        let Some(scope) = self.scopes.first() else { return Ok(()) };
        let mut objects = Vec::new();
        for (key, record) in records {
            let broken = |error: &dyn std::fmt::Display| Error::new(Fault::Other, format!("a record cannot be written: {error}"));
            let plain = encode(record).map_err(|error| broken(&error))?;
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            let packed = packed.write_all(&plain).and_then(|()| packed.finish()).map_err(|error| broken(&error))?;
            objects.push((Name::step(scope, &key), packed));
        }
        let store = self.blobs.store();
        stream::iter(objects)
            .map(|(name, bytes)| async move { store.write(&name, &BytesSource::new(bytes.into())).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}
