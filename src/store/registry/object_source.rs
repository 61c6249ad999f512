//! An object of a store as the source of an upload to a registry.

use std::io;

use async_trait::async_trait;
use tokio::io::AsyncReadExt as _;

use crate::store::Object;
use crate::transfer::{BlobSource, ByteStream, Identity};

/// The checked bytes of an object.
pub struct ObjectSource<'a, 'b>(pub &'a Object<'b>);

#[async_trait]
impl BlobSource for ObjectSource<'_, '_> {
    fn known(&self) -> Option<Identity> {
        Some(Identity { digest: self.0.digest().clone(), size: self.0.size() })
    }

    /// Reads from the beginning also for a later offset, because only whole bytes can be compared with their digest.
    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let mut stream = self.0.open().await?;
        tokio::io::copy(&mut (&mut stream).take(offset), &mut tokio::io::sink()).await?;
        Ok(stream)
    }

    async fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { digest: self.0.digest().clone(), size: self.0.size() })
    }
}
