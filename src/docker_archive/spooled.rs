//! A layer of an archive in a temporary file. Most destinations of layers begin with it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::format::Format;
use super::layer::{Layer, StoredLayer};
use crate::domain::{Descriptor, DiffId, Hasher};
use crate::settings::Compression;
use crate::transfer::compress::compress;
use crate::transfer::{BlobSource, ByteStream, Identity, Spool, SpoolWriter};

/// The number of bytes to read and write at once.
const BUFFER: usize = 256 << 10;

/// A complete layer.
pub struct Spooled {
    /// The bytes of the layer.
    pub blob: Spool,
    /// The layer's digests and size.
    pub layer: StoredLayer,
}

/// Spools a layer. Compresses an uncompressed layer if a compression is given, and keeps all others unchanged. Finds the diff ID in
/// the same pass.
///
/// # Errors
/// If the layer's bytes break off, cannot be decompressed, or cannot be written to the disk.
pub async fn spooled(layer: Layer, compression: Option<Compression>, directory: &Path) -> io::Result<Spooled> {
    let (writer, blob) = Spool::create(directory)?;
    let (identity, diff_id, format) = if layer.format == Format::Tar {
        let hasher = Arc::new(Mutex::new(Hasher::default()));
        let raw: ByteStream = Box::pin(Hashing { inner: layer.bytes, hasher: Arc::clone(&hasher) });
        let (bytes, format) = match compression {
            None => (raw, Format::Tar),
            Some(gzip @ Compression::Gzip(_)) => (compress(raw, gzip), Format::Gzip),
            Some(zstd @ Compression::Zstd(_)) => (compress(raw, zstd), Format::Zstd),
        };
        let identity = copy(bytes, writer).await?;
        let hasher = hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (identity, hasher.diff_id(), format)
    } else {
        let hash = async { diff_id(layer.format.decompress(blob.open(0).await?)).await };
        let (identity, diff_id) = tokio::try_join!(copy(layer.bytes, writer), hash)?;
        (identity, diff_id, layer.format)
    };
    let descriptor = Descriptor::new(format.media_type(), identity.digest, identity.size);
    Ok(Spooled { blob, layer: StoredLayer { diff_id, descriptor } })
}

/// Copies all bytes. Returns their identity.
pub(super) async fn copy(mut from: ByteStream, mut writer: SpoolWriter) -> io::Result<Identity> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(writer.finish()),
            Ok(read) => writer.write(&buffer[..read]).await?,
            Err(error) => {
                writer.fail(&error);
                return Err(error);
            }
        }
    }
}

/// Returns the diff ID of an uncompressed layer.
async fn diff_id(mut raw: ByteStream) -> io::Result<DiffId> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match raw.read(&mut buffer).await? {
            0 => return Ok(hasher.diff_id()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Hashes the bytes that pass through it.
struct Hashing {
    inner: ByteStream,
    hasher: Arc<Mutex<Hasher>>,
}

impl AsyncRead for Hashing {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(context, buffer))?;
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}
