//! A blob in a temporary file: one writer appends to it, and any number of readers follow it while it grows.
//!
//! An upload therefore starts with the first bytes from the daemon, and can resume after an interruption. One pass serves several
//! registries, and no layer is in memory.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use super::source::{BlobSource, ByteStream, Identity};
use crate::domain::Hasher;

#[derive(Debug, Clone)]
enum State {
    Growing(u64),
    Whole(Identity),
    Failed(io::ErrorKind, String),
}

impl State {
    fn written(&self) -> Option<u64> {
        match self {
            Self::Growing(written) => Some(*written),
            Self::Whole(identity) => Some(identity.size),
            Self::Failed(..) => None,
        }
    }
}

/// The readers' handle. The file is removed with the last handle.
#[derive(Clone)]
pub struct Spool {
    id: u64,
    path: Arc<tempfile::TempPath>,
    state: watch::Receiver<State>,
}

/// The writer's handle. If it is dropped before [`SpoolWriter::finish`], all readers fail.
pub struct SpoolWriter {
    file: File,
    hasher: Hasher,
    written: u64,
    state: watch::Sender<State>,
}

impl Spool {
    /// Creates an empty spool in this directory.
    ///
    /// # Errors
    /// If hakobi cannot create the file.
    pub fn create(directory: &Path) -> io::Result<(SpoolWriter, Self)> {
        let (file, path) = tempfile::Builder::new().prefix("hakobi-blob-").tempfile_in(directory)?.into_parts();
        let (sender, receiver) = watch::channel(State::Growing(0));
        let writer = SpoolWriter { file: File::from_std(file), hasher: Hasher::default(), written: 0, state: sender };
        Ok((writer, Self { id: rand::random(), path: Arc::new(path), state: receiver }))
    }

    /// Returns an ID that is unique in the run.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits until the spool has this many bytes, or the blob is complete. Returns whether it has them.
    pub async fn grown_to(&self, bytes: u64) -> bool {
        let mut state = self.state.clone();
        let enough = state.wait_for(|state| !matches!(state, State::Growing(written) if *written < bytes)).await;
        enough.is_ok_and(|state| state.written().is_some_and(|written| written >= bytes))
    }
}

impl SpoolWriter {
    /// Appends bytes, and wakes the readers.
    ///
    /// # Errors
    /// If the write fails.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.file.flush().await?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.state.send_replace(State::Growing(self.written));
        Ok(())
    }

    /// Returns the number of bytes so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the digest and size of the bytes so far, without ending the spool.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { digest: self.hasher.clone().digest(), size: self.written }
    }

    /// Completes the blob.
    pub fn finish(self) -> Identity {
        let identity = self.identity();
        self.state.send_replace(State::Whole(identity.clone()));
        identity
    }

    /// Copies a stream to its end in the background. If the stream fails, all readers fail with its error.
    pub fn fill(mut self, mut from: ByteStream) {
        tokio::spawn(async move {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = match from.read(&mut buffer).await {
                    Ok(0) => {
                        self.finish();
                        return;
                    }
                    Ok(read) => self.write(&buffer[..read]).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = read {
                    return self.fail(&error);
                }
            }
        });
    }

    /// Fails the blob and all its readers.
    pub fn fail(self, error: &io::Error) {
        self.state.send_replace(State::Failed(error.kind(), error.to_string()));
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.state.send_if_modified(|state| {
            let growing = matches!(state, State::Growing(_));
            if growing {
                *state = State::Failed(io::ErrorKind::Other, "the connection ended before the end of the blob".to_owned());
            }
            growing
        });
    }
}

#[async_trait]
impl BlobSource for Spool {
    fn known(&self) -> Option<Identity> {
        match &*self.state.borrow() {
            State::Whole(identity) => Some(identity.clone()),
            _ => None,
        }
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let mut file = File::open(&*self.path).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(Box::pin(Follower { file, offset, state: self.state.clone(), waiting: None, _path: Arc::clone(&self.path) }))
    }

    async fn identity(&self) -> io::Result<Identity> {
        let mut state = self.state.clone();
        let state = state
            .wait_for(|state| !matches!(state, State::Growing(_)))
            .await
            .map_err(|_| io::Error::other("the connection ended before the end of the blob"))?;
        match &*state {
            State::Whole(identity) => Ok(identity.clone()),
            State::Failed(kind, why) => Err(io::Error::new(*kind, why.clone())),
            State::Growing(_) => Err(io::Error::other("the blob is incomplete")),
        }
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<u64>> + Send>>;

/// Reads the written part of the file, then waits for more.
struct Follower {
    file: File,
    offset: u64,
    state: watch::Receiver<State>,
    waiting: Option<Waiting>,
    _path: Arc<tempfile::TempPath>,
}

/// Waits until the file is longer than `offset`, or the blob is complete. Returns the number of bytes by then.
async fn beyond(mut state: watch::Receiver<State>, offset: u64) -> io::Result<u64> {
    let state = state
        .wait_for(|state| !matches!(state, State::Growing(written) if *written <= offset))
        .await
        .map_err(|_| io::Error::other("the connection ended before the end of the blob"))?;
    match &*state {
        State::Failed(kind, why) => Err(io::Error::new(*kind, why.clone())),
        state => Ok(state.written().unwrap_or(offset)),
    }
}

impl AsyncRead for Follower {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let available = match this.waiting.as_mut() {
                Some(waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        this.waiting = None;
                        written?
                    }
                },
                None => match this.state.borrow().written() {
                    Some(written) if written > this.offset => written,
                    _ => {
                        this.waiting = Some(Box::pin(beyond(this.state.clone(), this.offset)));
                        continue;
                    }
                },
            };
            if available <= this.offset {
                return Poll::Ready(Ok(()));
            }
            let room = usize::try_from(available - this.offset).unwrap_or(usize::MAX).min(buf.remaining());
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            match Pin::new(&mut this.file).poll_read(cx, &mut part) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
            let read = part.filled().len();
            buf.advance(read);
            this.offset += read as u64;
            return Poll::Ready(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::domain::Digest;

    #[tokio::test]
    async fn readers_follow_the_writer() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, spool) = Spool::create(directory.path()).expect("a spool");
        let readers: Vec<_> = [0u64, 3, 100_000]
            .into_iter()
            .map(|offset| {
                let spool = spool.clone();
                tokio::spawn(async move {
                    let mut out = Vec::new();
                    spool.open(offset).await?.read_to_end(&mut out).await?;
                    io::Result::Ok(out)
                })
            })
            .collect();
        let mut whole = Vec::new();
        for number in 0..50u8 {
            let part = vec![number; 4000];
            writer.write(&part).await.expect("written");
            whole.extend(part);
            tokio::task::yield_now().await;
        }
        assert_eq!(spool.known(), None);
        let identity = writer.finish();
        assert_eq!(identity, Identity { digest: Digest::hash(&whole), size: whole.len() as u64 });
        assert_eq!(spool.identity().await.expect("whole"), identity);
        for (reader, offset) in readers.into_iter().zip([0, 3, 100_000]) {
            assert_eq!(reader.await.expect("joined").expect("read"), whole[offset..]);
        }
    }

    #[tokio::test]
    async fn a_writer_that_goes_away_fails_its_readers() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, spool) = Spool::create(directory.path()).expect("a spool");
        writer.write(b"half").await.expect("written");
        drop(writer);
        let mut out = Vec::new();
        assert!(spool.open(0).await.expect("opened").read_to_end(&mut out).await.is_err());
        assert!(spool.identity().await.is_err());
    }

    #[tokio::test]
    async fn the_file_goes_with_the_last_handle() {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, spool) = Spool::create(directory.path()).expect("a spool");
        writer.finish();
        drop(spool);
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0);
    }
}
