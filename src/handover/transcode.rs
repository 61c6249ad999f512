//! Decides which blobs are compressed again, and into which format.

use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncReadExt;

use crate::settings::Compression;
use crate::transfer::{BlobSource, Spool, compress};

/// The format of a blob, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Tar,
    Json,
}

impl Format {
    /// Detects the format. A tar has no magic bytes at its start; the other formats have.
    pub(super) fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'{', ..] => Self::Json,
            _ => Self::Tar,
        }
    }

    /// Returns whether a layer of this format must be compressed again. If gzip is requested, the daemon's gzip is good enough.
    pub(super) fn differs_from(self, wanted: Compression) -> bool {
        match (self, wanted) {
            (Self::Json, _) | (Self::Gzip, Compression::Gzip(_)) | (Self::Zstd, Compression::Zstd(_)) => false,
            (Self::Tar, _) | (Self::Gzip | Self::Zstd, _) => true,
        }
    }
}

/// Reads the first bytes of a blob, and waits for them if it is still arriving.
pub(super) async fn head(blob: &Spool, length: u64) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    blob.open(0).await?.take(length).read_to_end(&mut out).await?;
    Ok(out)
}

/// Compresses the layer with the requested compression, while it arrives.
pub(super) fn transcode(
    blob: Spool,
    format: Format,
    wanted: Compression,
    directory: &Path,
) -> std::io::Result<Arc<dyn BlobSource>> {
    let (writer, out) = Spool::create(directory)?;
    tokio::spawn(async move {
        match blob.open(0).await {
            Ok(raw) => {
                let raw = compress::decompress(raw, format == Format::Gzip, format == Format::Zstd);
                writer.fill(compress::compress(raw, wanted));
            }
            Err(error) => writer.fail(&error),
        }
    });
    Ok(Arc::new(out))
}
