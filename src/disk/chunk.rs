//! A chunk as a blob: compressed, and nothing at all if it is of zeros alone.

use bytes::Bytes;

use super::list::CHUNK;

/// zstd's level. Higher ones save little of what is mostly compressed already, and cost more than the network does.
const LEVEL: i32 = 1;

/// The most bytes that a compressed chunk has: what cannot be compressed grows a little.
pub(super) const LARGEST: u64 = (CHUNK + CHUNK / 128 + 1024) as u64;

/// Compresses a chunk. Returns `None` for zeros alone.
///
/// # Errors
/// If zstd fails.
pub(super) fn pack(chunk: &[u8]) -> std::io::Result<Option<Bytes>> {
    if chunk.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    Ok(Some(zstd::bulk::compress(chunk, LEVEL)?.into()))
}

/// Decompresses a chunk.
///
/// # Errors
/// If it has another size, or is no chunk.
pub(super) fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let chunk = zstd::bulk::decompress(packed, CHUNK)?;
    if chunk.len() != CHUNK {
        return Err(std::io::Error::other(format!("it has {} bytes", chunk.len())));
    }
    Ok(chunk)
}
