//! How long is waited and how often is tried again: full jitter under one deadline.
//!
//! A deadline is one operation's and also, as a [`Pulse`], one registry's: where nothing at all got through for that long, each
//! further operation is tried once. Else a push of many layers to a registry that is gone would wait for each of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::error::Error;

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long one operation, or all that is asked of one registry, may fail without getting on, all attempts together.
    pub total: Duration,
    /// The first pause is at most this long; each further one may be twice as long.
    pub first_pause: Duration,
    /// No pause is longer, but for one that the registry asked for.
    pub longest_pause: Duration,
    /// How long a connection may stand still.
    pub stall: Duration,
    /// How long the registry may take to answer once it has the whole of a request.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(180),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            // A registry that keeps its blobs in an object store may copy a whole layer before it answers a PUT.
            answer: Duration::from_secs(300),
        }
    }
}

/// Whether anything gets through to a registry. Shared by all that is asked of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Mutex<Option<Silence>>>);

/// Failures of which none was followed by anything that got through.
#[derive(Debug, Clone, Copy)]
struct Silence {
    began: Instant,
    last: Instant,
    failures: u32,
}

impl Pulse {
    fn with<T>(&self, change: impl FnOnce(&mut Option<Silence>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something got through.
    pub(super) fn beat(&self) {
        self.with(|silence| *silence = None);
    }

    /// Something did not. Where nobody asked for longer than an attempt and a pause may take, nothing is known of that time.
    fn missed(&self, now: Instant, patience: &Patience) -> Silence {
        self.with(|silence| {
            let before = silence.filter(|before| now - before.last <= patience.stall + patience.longest_pause);
            let began = before.map_or(now, |before| before.began);
            *silence.insert(Silence { began, last: now, failures: before.map_or(1, |before| before.failures + 1) })
        })
    }
}

/// The attempts of one operation.
#[derive(Debug)]
pub(super) struct Attempts {
    patience: Patience,
    pulse: Pulse,
    ended_by: Option<Silence>,
    began: Instant,
    since_progress: Instant,
    made: u32,
    in_a_row: u32,
}

impl Attempts {
    /// None made yet; of a registry with this pulse.
    pub(super) fn new(patience: &Patience, pulse: &Pulse) -> Self {
        let now = Instant::now();
        Self {
            patience: patience.clone(),
            pulse: pulse.clone(),
            ended_by: None,
            began: now,
            since_progress: now,
            made: 1,
            in_a_row: 0,
        }
    }

    /// How many were made.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// The error of the last one, with how often and for how long it was tried, here or with others.
    pub(super) fn ended(&self, error: Error) -> Error {
        let error = error.tried(self.made, self.began.elapsed());
        match self.ended_by {
            Some(silence) => error.silent(silence.failures, silence.began.elapsed()),
            None => error,
        }
    }

    /// The operation got on: the deadlines begin again.
    pub(super) fn progressed(&mut self) {
        self.pulse.beat();
        self.since_progress = Instant::now();
        self.in_a_row = 0;
    }

    /// Pauses before another attempt; `false` where the deadline leaves none. `asked` is what the registry asked for.
    pub(super) async fn again(&mut self, asked: Option<Duration>) -> bool {
        let silence = self.pulse.missed(Instant::now(), &self.patience);
        let left = |since: Duration| self.patience.total.saturating_sub(since);
        let pause = self.pause(asked);
        if pause >= left(self.since_progress.elapsed()) {
            return false;
        }
        if pause >= left(silence.began.elapsed()) {
            self.ended_by = Some(silence);
            return false;
        }
        tracing::debug!(attempt = self.made + 1, pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "trying again");
        tokio::time::sleep(pause).await;
        self.made += 1;
        self.in_a_row += 1;
        true
    }

    fn pause(&self, asked: Option<Duration>) -> Duration {
        let ceiling = self.patience.first_pause.saturating_mul(1 << self.in_a_row.min(16)).min(self.patience.longest_pause);
        let jitter = ceiling.mul_f64(rand::rng().random::<f64>());
        // A registry that names a time means it; the jitter keeps all that it told the same from coming back at once.
        asked.map_or(jitter, |asked| asked + jitter.min(Duration::from_secs(1)))
    }
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = date.as_second() - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_to_a_ceiling_and_end_at_the_deadline() {
        let patience = Patience { total: Duration::from_secs(5), first_pause: Duration::from_millis(1), ..Patience::default() };
        let mut attempts = Attempts::new(&patience, &Pulse::default());
        attempts.in_a_row = 40;
        assert!((0..100).all(|_| attempts.pause(None) <= patience.longest_pause));
        attempts.in_a_row = 0;
        assert!(attempts.pause(Some(Duration::from_secs(3))) >= Duration::from_secs(3));
        assert!(!attempts.again(Some(Duration::from_secs(6))).await, "longer than the deadline");
        assert!(attempts.again(Some(Duration::from_millis(5))).await);
        assert_eq!(attempts.made(), 2);
    }

    #[test]
    fn silence_lasts_until_something_gets_through_or_nobody_asked() {
        let (patience, pulse, began) = (Patience::default(), Pulse::default(), Instant::now());
        let missed = |seconds| pulse.missed(began + Duration::from_secs(seconds), &patience);
        let silence = |seconds| (missed(seconds).failures, missed(seconds).began);
        assert_eq!(silence(0), (1, began));
        assert_eq!(silence(60), (3, began));
        pulse.beat();
        assert_eq!(silence(61), (1, began + Duration::from_secs(61)), "something got through");
        assert_eq!(silence(300), (1, began + Duration::from_secs(300)), "it may have been well meanwhile");
    }

    #[tokio::test]
    async fn silence_ends_what_others_began() {
        let patience = Patience { first_pause: Duration::from_millis(1), ..Patience::default() };
        let (pulse, now) = (Pulse::default(), Instant::now());
        pulse.missed(now, &patience);
        // As if the one before had failed for that long, until just now.
        pulse.with(|silence| silence.iter_mut().for_each(|silence| silence.began = now - patience.total));
        let mut attempts = Attempts::new(&patience, &pulse);
        assert!(!attempts.again(None).await);
        let error = attempts.ended(Error::new(crate::registry::Kind::Network, "x", "y")).to_string();
        assert!(error.contains("no usable answer to 2 requests"), "{error}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let header = |text: &str| {
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("retry-after", text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(header("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(header("soon"), None);
    }
}
