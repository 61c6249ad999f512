//! How long a run waits for its store: one deadline and one circuit breaker for all that is asked of it, so that a store which
//! stalls or drips costs seconds, however many layers there are.
//!
//! Only time in which someone waits for the store counts, and only as far as the store is slower than the least rate.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::{Entry, Error, Fault, Name, Object, Result, Store};
use crate::transfer::ByteStream;

/// What every answer says of a store that was given up.
pub const GIVEN_UP: &str = "the cache is given up";

/// How often it is looked at what came.
const TICK: Duration = Duration::from_secs(1);

/// How patient a run is with its store.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The bytes in a second that the store as a whole has to move while someone waits for it.
    pub rate: u64,
    /// How long it may move none, in all.
    pub total: Duration,
    /// How often in a row it may fail by what is no answer to the question.
    pub failures: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // The slowest link that a cache is of any use on moves more; S3 gives a thousand times as much.
            rate: 16 << 10,
            // S3's own retries of a busy bucket take some 10 s; a cold build waits no longer than a minute for nothing.
            total: Duration::from_secs(45),
            // Each was tried several times already.
            failures: 4,
        }
    }
}

/// What is known of a store's pace in a run. Cheap to clone; clones are of the same store.
#[derive(Clone)]
pub struct Pace(Arc<Inner>);

struct Inner {
    patience: Patience,
    moved: AtomicU64,
    waiting: AtomicUsize,
    failures: AtomicUsize,
    /// Bytes that it is behind the least rate, and whether someone looks.
    state: Mutex<State>,
    /// Why the store was given up.
    given_up: watch::Sender<Option<Error>>,
}

#[derive(Default)]
struct State {
    behind: u64,
    watched: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(Patience::default())
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pace({} waiting)", self.0.waiting.load(Ordering::Relaxed))
    }
}

impl Pace {
    /// Of a store that a run is so patient with.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self(Arc::new(Inner {
            patience,
            moved: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            state: Mutex::default(),
            given_up: watch::Sender::default(),
        }))
    }

    /// The store moved so many bytes.
    pub fn moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Why the store was given up, if it was.
    #[must_use]
    pub fn given_up(&self) -> Option<Error> {
        self.0.given_up.borrow().clone()
    }

    fn give_up(&self, why: &str) {
        let error = Error::new(Fault::Unreachable, format!("{GIVEN_UP}: {why}"));
        self.0.given_up.send_if_modified(|given_up| {
            let is_first = given_up.is_none();
            given_up.get_or_insert(error);
            is_first
        });
    }

    /// Someone waits for the store until this is dropped.
    fn waits(&self) -> Waiting {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.watch();
        Waiting(self.clone())
    }

    /// Has someone look at what moves.
    fn watch(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.watched, true) {
            self.0.moved.store(0, Ordering::Relaxed);
            runtime.spawn(watched(self.clone()));
        }
    }

    /// One that waits for the store waits for something else until this is dropped.
    pub(super) fn excuses(&self) -> Excused {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        Excused(self.clone())
    }

    /// An answer, or that the store was given up before it came.
    async fn asked<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(error) = self.given_up() {
            return Err(error);
        }
        let _waiting = self.waits();
        let mut given_up = self.0.given_up.subscribe();
        let answer = tokio::select! {
            answer = answer => answer,
            error = given_up.wait_for(Option::is_some) => Err(error.ok().and_then(|error| error.clone()).unwrap_or_else(|| {
                Error::new(Fault::Unreachable, GIVEN_UP)
            })),
        };
        match &answer {
            Err(error) if error.fault() == Fault::Unreachable => {
                if self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 >= self.0.patience.failures {
                    self.give_up(&format!("it failed {} times in a row, the last time: {error}", self.0.patience.failures));
                }
            }
            // Also what it refuses is an answer.
            _ => {
                self.0.failures.store(0, Ordering::Relaxed);
                self.moved(self.0.patience.rate);
            }
        }
        answer
    }
}

/// Looks each second how far the store is behind, as long as someone waits for it.
async fn watched(pace: Pace) {
    let Patience { rate, total, .. } = pace.0.patience;
    let most = rate.saturating_mul(total.as_secs());
    loop {
        tokio::time::sleep(TICK).await;
        let moved = pace.0.moved.swap(0, Ordering::Relaxed);
        let mut state = pace.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.0.waiting.load(Ordering::Relaxed) == 0 {
            state.watched = false;
            return;
        }
        state.behind = (state.behind + rate).saturating_sub(moved);
        if state.behind >= most {
            state.watched = false;
            drop(state);
            return pace.give_up(&format!("for {} s it moved less than {} KiB in a second", total.as_secs(), rate >> 10));
        }
    }
}

/// Someone waits for the store.
struct Waiting(Pace);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A store that is given up as a whole once it is too slow or fails too often.
#[derive(Debug)]
pub struct Paced<S> {
    store: S,
    pace: Pace,
}

impl<S> Paced<S> {
    /// This store. A store that knows when bytes move tells this pace of it.
    #[must_use]
    pub fn new(store: S, pace: Pace) -> Self {
        Self { store, pace }
    }
}

#[async_trait]
impl<S: Store> Store for Paced<S> {
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

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.pace.asked(self.store.list(prefix)).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.pace.asked(self.store.delete(name)).await
    }
}

/// Someone who waits for the store waits for something else.
pub(super) struct Excused(Pace);

impl Drop for Excused {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.0.watch();
    }
}

type GivenUp = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bytes that come from a store.
struct PacedStream {
    inner: ByteStream,
    pace: Pace,
    /// While the next bytes are waited for; and what ends that.
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
    use crate::domain::Digest;
    use crate::store::MemoryStore;
    use crate::transfer::BytesSource;

    /// A store whose objects come so many bytes in a second, and which takes none.
    #[derive(Debug)]
    struct Slow(u64);

    #[async_trait]
    impl Store for Slow {
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
        Name::blob(&Digest::of(b"x"))
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
            assert!(read.expect_err("given up").to_string().contains("given up"));
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
