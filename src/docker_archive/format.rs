//! Detects formats by their first bytes: hakobi relies on no name and no media type in an archive.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::domain::media_type;
use crate::transfer::ByteStream;
use crate::transfer::compress::decompress;

/// The size of a tar block in bytes: headers have this size, and everything is padded to it.
pub(super) const BLOCK: usize = 512;

/// The compression of a layer, or of a whole archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No compression.
    Tar,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Format {
    /// Detects the format of a tar by its first bytes. Returns `None` if it is no tar, compressed or not. The head has [`BLOCK`]
    /// bytes, or all bytes if there are fewer.
    pub(super) fn detect(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            head if is_tar(head) => Some(Self::Tar),
            _ => None,
        }
    }

    /// Returns the media type of a layer in this format.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Tar => media_type::OCI_LAYER,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// Returns the uncompressed tar. A decompression failure is an error of the stream.
    #[must_use]
    pub fn decompress(self, from: ByteStream) -> ByteStream {
        decompress(from, self == Self::Gzip, self == Self::Zstd)
    }
}

/// Reads up to [`BLOCK`] first bytes of a stream.
pub(super) async fn head(from: &mut (impl AsyncRead + Unpin + Send)) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(BLOCK);
    from.take(BLOCK as u64).read_to_end(&mut head).await?;
    Ok(head)
}

/// Returns the stream with its head put back.
pub(super) fn with_head(head: Vec<u8>, rest: impl AsyncRead + Send + 'static) -> ByteStream {
    Box::pin(io::Cursor::new(head).chain(rest))
}

/// Describes bytes in another format.
pub(super) fn other(head: &[u8]) -> &'static str {
    match head {
        [] => "empty",
        [b'B', b'Z', b'h', ..] => "compressed with bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "compressed with xz",
        _ => "not a tar archive, and not compressed with gzip or zstd",
    }
}

/// Returns whether a tar begins with this head: a header with a correct checksum, or the end of an empty tar.
fn is_tar(head: &[u8]) -> bool {
    head.len() == BLOCK && (head.iter().all(|byte| *byte == 0) || checksum_fits(head))
}

/// Returns whether this block is a header (POSIX pax, "ustar Interchange Format": the sum of all bytes, the field itself as
/// spaces).
pub(super) fn checksum_fits(block: &[u8]) -> bool {
    let field = 148..156;
    let sum = |block: &[u8]| -> u32 { block.iter().map(|byte| u32::from(*byte)).sum() };
    let (Some(before), Some(after)) = (block.get(..field.start), block.get(field.end..)) else { return false };
    let expected = sum(before) + sum(after) + 8 * u32::from(b' ');
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|told| told == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_beginning() {
        let mut header = tar::Header::new_gnu();
        header.set_path("{}").expect("a path");
        header.set_size(0);
        header.set_cksum();
        assert_eq!(Format::detect(header.as_bytes()), Some(Format::Tar), "a name like JSON makes no JSON");
        assert_eq!(Format::detect(&[0; BLOCK]), Some(Format::Tar));
        assert_eq!(Format::detect(&[0; 100]), None);
        assert_eq!(Format::detect(&[0x1f, 0x8b, 8]), Some(Format::Gzip));
        assert_eq!(Format::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Some(Format::Zstd));
        let mut damaged = *header.as_bytes();
        damaged[0] = b'x';
        assert_eq!(Format::detect(&damaged), None);
    }
}
