//! Opens a store, and reads which layout it has.

use std::sync::Arc;

use serde::Serialize;

use crate::aws::AwsSource;
use crate::registry::Registries;
use crate::settings::StoreLocation;
use crate::store::{
    Blobs, DirectoryStore, Error, Fault, Name, ObjectStore, Pace, Paced, RegistryOptions, RegistryStore, Result, S3Store,
    read_small,
};
use crate::transfer::BytesSource;

/// The version of the store's layout that this program reads and writes.
pub const FORMAT: u32 = 1;

/// The content of `hakobi.json`.
#[derive(Serialize)]
pub struct Format {
    pub version: u32,
}

/// Opens the store at this location. `options` say how a run uses a repository of a registry.
pub async fn open(location: &StoreLocation, registries: &Registries, options: RegistryOptions) -> Arc<dyn ObjectStore> {
    match location {
        // The directory may be on a network file system.
        StoreLocation::Directory(directory) => Arc::new(Paced::new(DirectoryStore::new(directory.clone()), Pace::default())),
        StoreLocation::S3(settings) => {
            let pace = Pace::default();
            let store = S3Store::open_paced(settings.clone(), &AwsSource::Environment, pace.clone()).await;
            Arc::new(Paced::new(store, pace))
        }
        StoreLocation::Registry(settings) => {
            let pace = Pace::default();
            let options = RegistryOptions { prefix: settings.prefix.clone(), ..options };
            let store = RegistryStore::new(registries.repository(&settings.repository), options, pace.clone());
            Arc::new(Paced::new(store, pace))
        }
    }
}

/// What a store's `hakobi.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// There is no file, so there is no store yet.
    Absent,
    /// The file is damaged; the store's other objects may be valid.
    Unreadable,
    /// The store has the layout that this program supports.
    Known,
}

impl Layout {
    /// Reads the layout of a store.
    ///
    /// # Errors
    /// If the file cannot be read, or names another layout version.
    pub async fn read(store: &dyn ObjectStore) -> Result<Self> {
        let bytes = match read_small(store, &Name::format(), 64 << 10).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Self::Absent),
            Err(error) if error.fault() == Fault::Damaged => return Ok(Self::Unreadable),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<serde_json::Value>(&bytes).ok().as_ref().and_then(|format| format.get("version")) {
            None => Ok(Self::Unreadable),
            Some(version) if version.as_u64() == Some(FORMAT.into()) => Ok(Self::Known),
            // Another version of hakobi wrote it.
            Some(version) => {
                Err(Error::new(Fault::Other, format!("its layout version is {version}, but this hakobi supports {FORMAT}"))
                    .hint("use a newer hakobi or another prefix"))
            }
        }
    }
}

/// Returns whether there is a store of a supported layout.
///
/// # Errors
/// If the store cannot be read, has another layout, or its `hakobi.json` is damaged.
pub async fn is_there(store: &dyn ObjectStore) -> Result<bool> {
    match Layout::read(store).await? {
        Layout::Absent => Ok(false),
        Layout::Known => Ok(true),
        Layout::Unreadable => Err(Error::new(Fault::Damaged, "its hakobi.json is damaged")
            .hint("run `hakobi cache verify --repair`, or a build that writes to this cache")),
    }
}

/// Writes `hakobi.json` into a store that has no valid one.
///
/// # Errors
/// If the store cannot be read or written, or has another layout.
pub async fn begin(blobs: &Blobs) -> Result<()> {
    if Layout::read(blobs.store()).await? == Layout::Known { Ok(()) } else { write_format(blobs).await }
}

pub async fn write_format(blobs: &Blobs) -> Result<()> {
    let format = serde_json::to_vec(&Format { version: FORMAT }).unwrap_or_default();
    blobs.store().write(&Name::format(), &BytesSource::new(format.into())).await
}
