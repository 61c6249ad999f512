//! Compresses a stream on all cores while the bytes pass.
//!
//! The input is split into blocks, which are compressed in parallel. The output is their concatenation: gzip members (RFC 1952,
//! 2.2) or zstd frames (RFC 8878, 3.1), which every decoder reads as one stream. The blocks do not depend on the number of cores,
//! so the same input and level always give the same bytes.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::AsyncReadExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::source::ByteStream;
use crate::settings::Compression;

/// The number of bytes in a block. Its edges cost little compression: under 1 % of the size with gzip's window of 32 KiB. A few
/// blocks per core need little memory.
const BLOCK: usize = 1 << 20;

/// The number of bytes in a block of zstd, which has a larger window.
const ZSTD_BLOCK: usize = 4 << 20;

/// Compresses a stream.
#[must_use]
pub fn compress(from: ByteStream, compression: Compression) -> ByteStream {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let size = if matches!(compression, Compression::Gzip(_)) { BLOCK } else { ZSTD_BLOCK };
    let blocks = blocks(from, size).map(move |block| async move {
        let block = block?;
        tokio::task::spawn_blocking(move || encode(&block, compression)).await.map_err(io::Error::other)?
    });
    Box::pin(StreamReader::new(Box::pin(blocks.buffered(cores + 1))))
}

/// Decompresses a stream if its first bytes are those of gzip or zstd.
///
/// # Errors
/// If the stream is not readable.
pub async fn plain(mut from: ByteStream) -> io::Result<ByteStream> {
    let mut head = Vec::new();
    (&mut from).take(4).read_to_end(&mut head).await?;
    let (gzip, zstd) = (head.starts_with(&[0x1f, 0x8b]), head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let whole: ByteStream = Box::pin(AsyncReadExt::chain(io::Cursor::new(head), from));
    Ok(if gzip || zstd { decompress(whole, gzip, zstd) } else { whole })
}

/// Decompresses a stream if it is gzip or zstd. Several members or frames are read as one. Invalid data gives an error of the stream.
#[must_use]
pub fn decompress(from: ByteStream, gzip: bool, zstd: bool) -> ByteStream {
    if !gzip && !zstd {
        return from;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let from = SyncIoBridge::new(from);
        let decoder: io::Result<Box<dyn Read>> = if gzip {
            Ok(Box::new(MultiGzDecoder::new(from)))
        } else {
            zstd::Decoder::new(from).and_then(|mut decoder| {
                decoder.window_log_max(27)?;
                Ok(Box::new(decoder) as Box<dyn Read>)
            })
        };
        let result = decoder.and_then(|mut decoder| {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match decoder.read(&mut buffer)? {
                    0 => return Ok(()),
                    read if sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..read]))).is_err() => return Ok(()),
                    _ => {}
                }
            }
        });
        if let Err(error) = result {
            let _ = sender.blocking_send(Err(error));
        }
    });
    Box::pin(StreamReader::new(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

/// Splits a stream into blocks of this size. The last block may be shorter. An empty stream gives one empty block, so that the
/// output is a valid stream too.
fn blocks(from: ByteStream, size: usize) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((from, true), move |(mut from, first)| async move {
        let mut block = BytesMut::with_capacity(size);
        while block.len() < size {
            let room = size - block.len();
            if (&mut from).take(room as u64).read_buf(&mut block).await? == 0 {
                break;
            }
        }
        if block.is_empty() && !first {
            return Ok(None);
        }
        io::Result::Ok(Some((block.freeze(), (from, false))))
    })
    .into_stream()
}

fn encode(block: &[u8], compression: Compression) -> io::Result<Bytes> {
    match compression {
        Compression::Gzip(level) => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(block.len() / 2), flate2::Compression::new(level));
            encoder.write_all(block)?;
            Ok(encoder.finish()?.into())
        }
        Compression::Zstd(level) => Ok(zstd::encode_all(block, level)?.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut from: ByteStream) -> Vec<u8> {
        let mut out = Vec::new();
        from.read_to_end(&mut out).await.expect("read");
        out
    }

    fn stream_of(bytes: &[u8]) -> ByteStream {
        Box::pin(io::Cursor::new(bytes.to_vec()))
    }

    /// A larger window would take more memory than hakobi may use. Only the frame's header states it.
    #[tokio::test]
    async fn a_window_has_a_limit() {
        for (log, is_allowed) in [(27, true), (28, false)] {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
            encoder.window_log(log).expect("a window");
            encoder.write_all(b"a few bytes").expect("written");
            let frame = encoder.finish().expect("a frame");
            let mut out = Vec::new();
            assert_eq!(decompress(stream_of(&frame), false, true).read_to_end(&mut out).await.is_ok(), is_allowed, "{log}");
        }
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let text: Vec<u8> = (0..600_000u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
        for bytes in [&b""[..], b"x", &text[..BLOCK], &text] {
            for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
                let compressed = read(compress(stream_of(bytes), compression)).await;
                assert_eq!(
                    compressed,
                    read(compress(stream_of(bytes), compression)).await,
                    "the same input gives the same bytes"
                );
                let gzip = matches!(compression, Compression::Gzip(_));
                let back = decompress(stream_of(&compressed), gzip, !gzip);
                assert!(read(back).await == bytes, "{compression:?} of {} bytes", bytes.len());
            }
        }
    }

    #[tokio::test]
    async fn damage_is_an_error() {
        let mut compressed = read(compress(stream_of(&[7; 5000]), Compression::Gzip(6))).await;
        let middle = compressed.len() / 2;
        compressed[middle] ^= 0xff;
        let mut out = Vec::new();
        assert!(decompress(stream_of(&compressed), true, false).read_to_end(&mut out).await.is_err());
    }
}
