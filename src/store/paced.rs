//! A store whose operations are limited by a pace.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::pace::{GivenUp, Waiting};
use super::{Entry, GIVEN_UP, Name, Object, ObjectStore, Pace, Result};
use crate::domain::{Digest, Repository};
use crate::transfer::ByteStream;

/// A store that hakobi gives up as a whole once it is too slow or fails too often.
#[derive(Debug)]
pub struct Paced<S> {
    store: S,
    pace: Pace,
}

impl<S> Paced<S> {
    /// Returns this store with a pace. A store that knows when bytes move must report them to this pace.
    #[must_use]
    pub fn new(store: S, pace: Pace) -> Self {
        Self { store, pace }
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Paced<S> {
    async fn size(&self, name: &Name) -> Result<Option<u64>> {
        self.pace.asked(self.store.size(name)).await
    }

    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>> {
        let stream = self.pace.asked(self.store.read(name, range)).await?;
        Ok(stream.map(|inner| Box::pin(PacedStream { inner, pace: self.pace.clone(), waits: None }) as ByteStream))
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()> {
        let object = object.paced(&self.pace);
        self.pace.asked(self.store.put(name, &object)).await
    }

    async fn replace(&self, name: &Name, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
        self.pace.asked(self.store.replace(name, before, after)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.pace.asked(self.store.list(prefix)).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.pace.asked(self.store.delete(name)).await
    }

    async fn delete_all(&self, names: &[Name]) -> Result<()> {
        self.pace.asked(self.store.delete_all(names)).await
    }

    async fn delete_leftovers(&self, before: u64) -> Result<u64> {
        self.pace.asked(self.store.delete_leftovers(before)).await
    }

    fn note_origin(&self, digest: &Digest, from: &Repository) {
        self.store.note_origin(digest, from);
    }

    fn is_mounted(&self, digest: &Digest) -> bool {
        self.store.is_mounted(digest)
    }

    fn note_use(&self, name: &Name) {
        self.store.note_use(name);
    }

    fn repository(&self) -> Option<&Repository> {
        self.store.repository()
    }

    async fn flush(&self) -> Result<()> {
        self.pace.asked(self.store.flush()).await
    }
}

/// A stream of a store.
pub(super) struct PacedStream {
    inner: ByteStream,
    pace: Pace,
    /// Set while a reader waits for the next bytes; and what ends the wait.
    waits: Option<(Waiting, GivenUp)>,
}

impl AsyncRead for PacedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = this.inner.as_mut().poll_read(context, buffer) {
            this.waits = None;
            this.pace.moved((buffer.filled().len() - before) as u64);
            return Poll::Ready(read);
        }
        let pace = &this.pace;
        let (_, given_up) = this.waits.get_or_insert_with(|| {
            let mut given_up = pace.0.given_up.subscribe();
            (pace.waits(), Box::pin(async move { drop(given_up.wait_for(Option::is_some).await) }))
        });
        match given_up.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                this.waits = None;
                let error = this.pace.given_up();
                Poll::Ready(Err(error.map_or_else(|| io::Error::other(GIVEN_UP), io::Error::other)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::store::MemoryStore;
    use crate::store::{Error, Fault};
    use crate::transfer::BytesSource;
    use std::time::Duration;

    /// A store that supplies this many bytes per second, and accepts none.
    #[derive(Debug)]
    struct Slow(u64);

    #[async_trait]
    impl ObjectStore for Slow {
        async fn size(&self, _: &Name) -> Result<Option<u64>> {
            Err(Error::new(Fault::Unreachable, "busy"))
        }

        async fn read(&self, _: &Name, _: Range<u64>) -> Result<Option<ByteStream>> {
            let (mut ours, theirs) = tokio::io::duplex(1 << 20);
            let bytes = vec![0; usize::try_from(self.0).unwrap_or_default()];
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if ours.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Some(Box::pin(theirs.take(10 << 20))))
        }

        async fn put(&self, _: &Name, _: &Object<'_>) -> Result<()> {
            std::future::pending().await
        }

        async fn list(&self, _: &str) -> Result<Vec<Entry>> {
            Ok(Vec::new())
        }

        async fn delete(&self, _: &Name) -> Result<()> {
            Ok(())
        }
    }

    fn name() -> Name {
        Name::blob(&Digest::hash(b"x"))
    }

    async fn read(store: &Paced<Slow>) -> (io::Result<usize>, u64) {
        let began = Instant::now();
        let mut stream = store.read(&name(), 0..u64::MAX).await.expect("an answer").expect("there");
        let read = stream.read_to_end(&mut Vec::new()).await;
        (read, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_drips_is_given_up_for_all() {
        let store = Paced::new(Slow(200), Pace::default());
        let reads = futures::future::join_all((0..8).map(|_| read(&store))).await;
        for (read, seconds) in reads {
            assert!(read.expect_err("given up").to_string().contains("no longer used"));
            assert!((40..60).contains(&seconds), "{seconds}");
        }
        let began = Instant::now();
        assert!(store.list("").await.expect_err("given up").to_string().contains("16 KiB"));
        assert_eq!(began.elapsed().as_secs(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_is_not_given_up() {
        let store = Paced::new(Slow(20 << 10), Pace::default());
        let (read, seconds) = read(&store).await;
        assert_eq!(read.expect("read"), 10 << 20);
        assert!(seconds > 500, "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_its_time_is_none_of_the_stores_fault() {
        let store = Paced::new(Slow(1 << 20), Pace::default());
        let mut stream = store.read(&name(), 0..u64::MAX).await.expect("an answer").expect("there");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            stream.read_exact(&mut [0; 100]).await.expect("read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_stalls_ends() {
        let store = Paced::new(Slow(0), Pace::default());
        let began = Instant::now();
        let source = BytesSource::new("x".into());
        assert_eq!(store.write(&name(), &source).await.expect_err("given up").fault(), Fault::Unreachable);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn one_breaker_for_all_failures() {
        let pace = Pace::default();
        let store = Paced::new(Slow(0), pace.clone());
        for _ in 0..3 {
            assert_eq!(store.size(&name()).await.expect_err("busy").to_string(), "busy");
        }
        store.list("").await.expect("an answer begins anew");
        for _ in 0..4 {
            store.size(&name()).await.expect_err("busy");
        }
        assert!(pace.given_up().expect("given up").to_string().contains("busy"));
        assert!(store.list("").await.is_err());
        let memory = Paced::new(MemoryStore::default(), Pace::default());
        memory.write(&name(), &BytesSource::new("x".into())).await.expect("written");
        assert_eq!(memory.size(&name()).await.expect("an answer"), Some(1));
    }
}
