//! Limits how long a run waits for its store: one deadline and one circuit breaker for all requests. A store that stalls or is very
//! slow then costs seconds, however many layers there are.
//!
//! Only time in which a task waits for the store counts, and only as far as the store is slower than the minimum rate.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Error, Fault, Result};

/// The message of every answer after hakobi gave the store up.
pub const GIVEN_UP: &str = "the cache is no longer used";

/// How often hakobi checks the moved bytes.
const TICK: Duration = Duration::from_secs(1);

/// How patient a run is with its store.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Minimum rate of the store as a whole in bytes per second, while a task waits for it.
    pub rate: u64,
    /// How long it may move no byte, in total.
    pub total: Duration,
    /// How often in a row it may fail without an answer.
    pub failures: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // The slowest link on which a cache is of any use moves more; S3 gives a thousand times as much.
            rate: 16 << 10,
            // S3's own retries of a busy bucket take some 10 s; a cold build waits at most a minute in vain.
            total: Duration::from_secs(45),
            // Each request was already tried several times.
            failures: 4,
        }
    }
}

/// The pace of a store in a run. Cheap to clone; clones belong to the same store.
#[derive(Clone)]
pub struct Pace(pub(super) Arc<Inner>);

pub(super) struct Inner {
    patience: Patience,
    moved: AtomicU64,
    waiting: AtomicUsize,
    failures: AtomicUsize,
    /// The bytes that it is behind the minimum rate, and whether a task checks it.
    state: Mutex<State>,
    /// Why hakobi gave the store up.
    pub(super) given_up: watch::Sender<Option<Error>>,
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
    /// Returns the pace for a store with this patience.
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

    /// Notes that the store moved these bytes.
    pub fn moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns why hakobi gave the store up, or `None`.
    #[must_use]
    pub fn given_up(&self) -> Option<Error> {
        self.0.given_up.borrow().clone()
    }

    pub(super) fn give_up(&self, why: &str) {
        let error = Error::new(Fault::Unreachable, format!("{GIVEN_UP}: {why}"));
        self.0.given_up.send_if_modified(|given_up| {
            let is_first = given_up.is_none();
            given_up.get_or_insert(error);
            is_first
        });
    }

    /// Counts a task that waits for the store, until the result is dropped.
    pub(super) fn waits(&self) -> Waiting {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.watch();
        Waiting(self.clone())
    }

    /// Starts the task that checks the moved bytes, unless it runs already.
    pub(super) fn watch(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.watched, true) {
            self.0.moved.store(0, Ordering::Relaxed);
            runtime.spawn(watched(self.clone()));
        }
    }

    /// Notes that a waiting task waits for something else, until the result is dropped.
    pub(super) fn excuses(&self) -> Excused {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        Excused(self.clone())
    }

    /// Waits for an answer, unless hakobi gives the store up before.
    ///
    /// # Errors
    /// The store's error, or why hakobi gave the store up.
    pub(super) async fn asked<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
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
                    self.give_up(&format!("{} requests failed in a row, the last one with: {error}", self.0.patience.failures));
                }
            }
            // A refusal is an answer too.
            _ => {
                self.0.failures.store(0, Ordering::Relaxed);
                self.moved(self.0.patience.rate);
            }
        }
        answer
    }
}

/// Checks each second how far the store is behind, as long as a task waits for it.
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
            return pace.give_up(&format!("for {} s, it transferred less than {} KiB per second", total.as_secs(), rate >> 10));
        }
    }
}

/// A task waits for the store.
pub(super) struct Waiting(Pace);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task that waits for the store waits for something else.
pub(super) struct Excused(Pace);

impl Drop for Excused {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.0.watch();
    }
}

pub(super) type GivenUp = Pin<Box<dyn Future<Output = ()> + Send>>;
