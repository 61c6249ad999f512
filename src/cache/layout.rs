//! What a place says of itself as a store, and how it is opened.

use std::sync::Arc;

use serde::Serialize;

use crate::aws::AwsSource;
use crate::settings::StoreLocation;
use crate::store::{Blobs, DirectoryStore, Error, Fault, Name, ObjectStore, Pace, Paced, Result, S3Store, read_small};
use crate::transfer::BytesSource;

/// The version of the store's layout that this program reads and writes.
pub const FORMAT: u32 = 1;

/// What `hakobi.json` says.
#[derive(Serialize)]
pub struct Format {
    pub version: u32,
}

/// The store at this place.
pub async fn open(location: &StoreLocation) -> Arc<dyn ObjectStore> {
    match location {
        // A directory may be another machine's.
        StoreLocation::Directory(directory) => Arc::new(Paced::new(DirectoryStore::new(directory.clone()), Pace::default())),
        StoreLocation::S3(settings) => {
            let pace = Pace::default();
            let store = S3Store::open_paced(settings.clone(), &AwsSource::Environment, pace.clone()).await;
            Arc::new(Paced::new(store, pace))
        }
    }
}

/// What a place says of itself as a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Nothing: there is no store yet.
    Absent,
    /// Nothing that can be understood: the file is damaged, and what is beside it may be right.
    Unreadable,
    /// It is a store of the layout that this program knows.
    Known,
}

impl Layout {
    /// Of a place.
    ///
    /// # Errors
    /// If it cannot be read, or has another layout.
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
            // Whatever it is, another hakobi wrote it.
            Some(version) => {
                Err(Error::new(Fault::Other, format!("its layout version is {version}, but this hakobi supports {FORMAT}"))
                    .hint("use a newer hakobi or another prefix"))
            }
        }
    }
}

/// Whether there is a store yet, of a layout that this program knows.
///
/// # Errors
/// Also if nobody can tell, as what it says of itself is damaged.
pub async fn is_there(store: &dyn ObjectStore) -> Result<bool> {
    match Layout::read(store).await? {
        Layout::Absent => Ok(false),
        Layout::Known => Ok(true),
        Layout::Unreadable => Err(Error::new(Fault::Damaged, "failed to read its hakobi.json")
            .hint("run `hakobi cache verify --repair`, or a build that writes to this cache")),
    }
}

/// Says what its layout is of a store that does not.
pub async fn begin(blobs: &Blobs) -> Result<()> {
    if Layout::read(blobs.store()).await? == Layout::Known { Ok(()) } else { write_format(blobs).await }
}

pub async fn write_format(blobs: &Blobs) -> Result<()> {
    let format = serde_json::to_vec(&Format { version: FORMAT }).unwrap_or_default();
    blobs.store().write(&Name::format(), &BytesSource::new(format.into())).await
}
