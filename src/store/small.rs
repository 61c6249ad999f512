//! Reads small objects as a whole.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::{Error, Fault, Name, ObjectStore, Result};
use crate::registry;
use crate::transfer::ByteStream;

/// Reads a small object as a whole. Returns `None` if it is missing.
///
/// # Errors
/// If it has more than `limit` bytes, or the store cannot be read.
pub async fn read_small(store: &dyn ObjectStore, name: &Name, limit: u64) -> Result<Option<Bytes>> {
    let Some(mut stream) = store.read(name, 0..limit.saturating_add(1)).await? else { return Ok(None) };
    let mut bytes = Vec::new();
    let broken = |error: io::Error| {
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<registry::Error>());
        let is_damaged = cause.is_some_and(|cause| cause.kind == registry::Kind::Damaged);
        let fault = if is_damaged { Fault::Damaged } else { Fault::Unreachable };
        Error::new(fault, format!("failed to read {name}: {error}"))
    };
    stream.read_to_end(&mut bytes).await.map_err(broken)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Fault::Damaged, format!("{name} has more than the limit of {limit} bytes")));
    }
    Ok(Some(bytes.into()))
}

/// Returns a part of bytes in memory as a stream. What of the range lies behind their end is left out.
pub fn part(bytes: &Bytes, range: &Range<u64>) -> ByteStream {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let (start, end) = (at(range.start), at(range.end));
    Box::pin(io::Cursor::new(bytes.slice(start.min(end)..end)))
}

/// Reads a small object, like [`read_small`]. A damaged one counts as missing.
///
/// # Errors
/// If the store does not answer.
pub async fn read_undamaged(store: &dyn ObjectStore, name: &Name, limit: u64) -> Result<Option<Bytes>> {
    match read_small(store, name, limit).await {
        Err(error) if error.fault() == Fault::Damaged => Ok(None),
        read => read,
    }
}
