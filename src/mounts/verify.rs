//! Checks a saved mount: its list, and each chunk of its content.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::Error;
use super::load::{load, stream};
use super::parts::PartSink;
use super::saved::SavedMount;
use crate::store::{Blobs, Fault, Result};

/// Reads all of a saved mount. Returns what is wrong with it, or `None` if hakobi can bring it in.
///
/// # Errors
/// If the store cannot be read.
pub async fn verify(blobs: &Blobs, saved: &SavedMount) -> Result<Option<String>> {
    let read = async {
        let list = load(blobs, saved).await?;
        stream(blobs, &list, &mut Nowhere).await
    };
    match read.await {
        Ok(()) => Ok(None),
        Err(Error::Store(error)) if error.fault() != Fault::Damaged => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Drops all content.
struct Nowhere;

#[async_trait]
impl PartSink for Nowhere {
    async fn part(&mut self, _: u32, _: u64, _: Bytes) -> io::Result<()> {
        Ok(())
    }
}
