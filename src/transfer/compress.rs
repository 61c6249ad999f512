//! Layers compressed on every core, hashed on both sides as they stream.
//!
//! gzip is made of members of one mebibyte of input each, which every gzip reader takes as one stream (RFC 1952, 2.2). The
//! same input and level give the same bytes, whatever the number of cores. At most a few blocks are in memory.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::num::NonZero;

use bytes::{Bytes, BytesMut};
use flate2::GzBuilder;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::source::Identity;
use super::spool::SpoolWriter;
use crate::domain::{DiffId, Hasher, media_type};
use crate::settings::Compression;

const BLOCK: usize = 1 << 20;

/// A layer that was compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    /// Of the compressed bytes.
    pub identity: Identity,
    /// Of the bytes that went in.
    pub diff_id: DiffId,
    /// How many went in.
    pub uncompressed: u64,
}

/// The media type of a layer that is compressed so.
#[must_use]
pub fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip(_) => media_type::OCI_LAYER_GZIP,
        Compression::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    }
}

/// Compresses a stream into a spool, whose readers follow. Where it fails, they fail too.
///
/// # Errors
/// If the input cannot be read or the spool not be written.
pub async fn compress(
    input: impl AsyncRead + Send + Unpin,
    compression: Compression,
    mut output: SpoolWriter,
) -> io::Result<Compressed> {
    let mut input = Input { input, hashing: spawn_blocking(Hasher::default), read: 0 };
    let done = match compression {
        Compression::Gzip(level) => gzip(&mut input, level, &mut output).await,
        Compression::Zstd(level) => zstd(&mut input, level, &mut output).await,
    };
    if let Err(error) = done {
        output.fail(&error.to_string());
        return Err(error);
    }
    let uncompressed = input.read;
    let diff_id = input.hashing.await.map_err(io::Error::other)?.diff_id();
    Ok(Compressed { identity: output.finish(), diff_id, uncompressed })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, NonZero::get)
}

/// The input in blocks, hashed in order beside all else.
struct Input<R> {
    input: R,
    hashing: JoinHandle<Hasher>,
    read: u64,
}

impl<R: AsyncRead + Send + Unpin> Input<R> {
    /// The next block: a full one, but for the last. Empty at the end.
    async fn block(&mut self) -> io::Result<Bytes> {
        let mut block = BytesMut::with_capacity(BLOCK);
        while block.len() < BLOCK {
            let room = (BLOCK - block.len()) as u64;
            if (&mut self.input).take(room).read_buf(&mut block).await? == 0 {
                break;
            }
        }
        let block = block.freeze();
        self.read += block.len() as u64;
        let hashed = block.clone();
        let mut hasher = (&mut self.hashing).await.map_err(io::Error::other)?;
        self.hashing = spawn_blocking(move || {
            hasher.update(&hashed);
            hasher
        });
        Ok(block)
    }
}

async fn gzip(input: &mut Input<impl AsyncRead + Send + Unpin>, level: u32, output: &mut SpoolWriter) -> io::Result<()> {
    let mut under_way: VecDeque<JoinHandle<io::Result<Vec<u8>>>> = VecDeque::new();
    let at_once = cores() + 1;
    let mut first = true;
    loop {
        let block = input.block().await?;
        let ended = block.len() < BLOCK;
        // No input at all is one empty member: no bytes at all would not be gzip.
        if first || !block.is_empty() {
            under_way.push_back(spawn_blocking(move || member(&block, level)));
        }
        first = false;
        while under_way.len() > if ended { 0 } else { at_once } {
            let Some(next) = under_way.pop_front() else { break };
            output.write(&next.await.map_err(io::Error::other)??).await?;
        }
        if ended {
            return Ok(());
        }
    }
}

fn member(block: &[u8], level: u32) -> io::Result<Vec<u8>> {
    // Neither a time nor an operating system: the bytes depend on the input alone.
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::with_capacity(BLOCK / 2), flate2::Compression::new(level.min(9)));
    encoder.write_all(block)?;
    encoder.finish()
}

async fn zstd(input: &mut Input<impl AsyncRead + Send + Unpin>, level: i32, output: &mut SpoolWriter) -> io::Result<()> {
    let (blocks, mut taken) = mpsc::channel::<Bytes>(2);
    let (parts, mut made) = mpsc::channel::<Vec<u8>>(8);
    let encoding = spawn_blocking(move || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(Parts(parts), level)?;
        // At least one worker: without any, the format's blocks are cut in another way.
        encoder.multithread(u32::try_from(cores()).unwrap_or(1).max(1))?;
        encoder.include_checksum(true)?;
        while let Some(block) = taken.blocking_recv() {
            // An empty block ends the stream; a channel that only closes means that the input failed.
            if block.is_empty() {
                encoder.finish()?;
                return Ok(());
            }
            encoder.write_all(&block)?;
        }
        Err(io::Error::other("the input ended before it was whole"))
    });
    let feed = async {
        loop {
            let block = input.block().await?;
            let ended = block.len() < BLOCK;
            let last = ended && !block.is_empty();
            if blocks.send(block).await.is_err() {
                // The encoder's own error says why.
                return Ok(());
            }
            if last {
                let _ = blocks.send(Bytes::new()).await;
            }
            if ended {
                return io::Result::Ok(());
            }
        }
    };
    let drain = async {
        while let Some(part) = made.recv().await {
            output.write(&part).await?;
        }
        encoding.await.map_err(io::Error::other)?
    };
    futures::future::try_join(feed, drain).await?;
    Ok(())
}

/// What an encoder writes, as messages.
struct Parts(mpsc::Sender<Vec<u8>>);

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;
    use crate::transfer::{BlobSource as _, Spool};

    /// Gives its bytes in pieces of odd sizes, as a network does.
    struct Pieces(Vec<u8>, usize);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let size = (self.1 % 70_001 + 1).min(buf.remaining()).min(self.0.len() - self.1);
            buf.put_slice(&self.0[self.1..self.1 + size]);
            self.1 += size;
            Poll::Ready(Ok(()))
        }
    }

    fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..size)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 4096 < 1500 { (state >> 24) as u8 } else { (at / 97) as u8 }
            })
            .collect()
    }

    async fn run(data: &[u8], compression: Compression) -> (Compressed, Vec<u8>) {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, spool) = Spool::create(directory.path()).expect("a spool");
        let compressed = compress(Pieces(data.to_vec(), 0), compression, writer).await.expect("compressed");
        let mut out = Vec::new();
        spool.open(0).await.expect("opened").read_to_end(&mut out).await.expect("read");
        assert_eq!(compressed.identity, spool.identity().await.expect("whole"));
        (compressed, out)
    }

    #[tokio::test]
    async fn both_decode_to_what_went_in_and_are_the_same_each_time() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 4321] {
            let data = sample(size);
            for compression in [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(3)] {
                let (first, bytes) = run(&data, compression).await;
                let (again, _) = run(&data, compression).await;
                assert_eq!(first, again, "{compression:?} {size}");
                assert_eq!((first.diff_id, first.uncompressed), (DiffId::of(&data), size as u64));
                let mut decoded = Vec::new();
                match compression {
                    Compression::Gzip(_) => {
                        _ = flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut decoded).expect("gzip")
                    }
                    Compression::Zstd(_) => decoded = zstd::decode_all(&*bytes).expect("zstd"),
                }
                assert!(decoded == data, "{compression:?} {size}");
            }
        }
    }

    #[tokio::test]
    async fn input_that_breaks_off_fails_the_readers() {
        struct Broken(bool);
        impl AsyncRead for Broken {
            fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                if std::mem::replace(&mut self.0, true) {
                    return Poll::Ready(Err(io::Error::other("gone")));
                }
                buf.put_slice(b"half");
                Poll::Ready(Ok(()))
            }
        }
        for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
            let directory = tempfile::tempdir().expect("a directory");
            let (writer, spool) = Spool::create(directory.path()).expect("a spool");
            assert!(compress(Broken(false), compression, writer).await.is_err());
            assert!(spool.identity().await.expect_err("failed").to_string().contains("gone"));
        }
    }
}
