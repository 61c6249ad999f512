//! Pauses between attempts, and the number of attempts: full jitter under one deadline.
//!
//! Each operation has a deadline, and so does each registry, as a [`Pulse`]. If no request to a registry succeeds for that long,
//! hakobi tries each further operation only once. Otherwise a push of many layers to a lost registry would wait for each layer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::error::Error;

/// The time limits of the client.
#[derive(Debug, Clone)]
pub struct Patience {
    /// The time limit without progress of one operation, or of all requests to one registry, over all attempts.
    pub total: Duration,
    /// The maximum of the first pause. Each further pause may be twice as long.
    pub first_pause: Duration,
    /// The maximum of a pause, unless the registry requests a longer one.
    pub longest_pause: Duration,
    /// The time limit for a connection without any bytes.
    pub stall: Duration,
    /// The time limit for the registry's answer after it has received the whole request.
    pub answer: Duration,
    /// The minimum rate of a registry in bytes per second, while hakobi waits for the bytes of blobs.
    pub rate: u64,
    /// How long it may move no byte, in total.
    pub slow: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(180),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            // A registry with an object store may copy a whole layer before it answers a PUT.
            answer: Duration::from_secs(300),
            // An uplink with less takes hours for any image.
            rate: 16 << 10,
            slow: Duration::from_secs(300),
        }
    }
}

/// Whether requests to a registry succeed. All its operations share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Mutex<Option<Silence>>>);

/// Failures without a later success.
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

    /// Records a success.
    pub(super) fn beat(&self) {
        self.with(|silence| *silence = None);
    }

    /// Records a failure. If there was no request for longer than an attempt and a pause may take, nothing is known about that
    /// time.
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
    /// Creates the attempts of an operation at a registry with this pulse, with none made yet.
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

    /// Returns the number of attempts made.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Adds to the last error how often and for how long hakobi tried, in this operation or in others.
    pub(super) fn ended(&self, error: Error) -> Error {
        let error = error.tried(self.made, self.began.elapsed());
        match self.ended_by {
            Some(silence) => error.silent(silence.failures, silence.began.elapsed()),
            None => error,
        }
    }

    /// Records progress: the deadlines start again.
    pub(super) fn progressed(&mut self) {
        self.pulse.beat();
        self.since_progress = Instant::now();
        self.in_a_row = 0;
    }

    /// Pauses before another attempt. Returns `false` if the deadline allows none. `asked` is the pause that the registry requests.
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
        // hakobi waits at least the time that the registry requests. The jitter prevents that all clients with the same time return
        // at once.
        asked.map_or(jitter, |asked| asked + jitter.min(Duration::from_secs(1)))
    }
}

/// Returns the pause in `Retry-After`, which is a number of seconds or a date. Returns `None` if there is none.
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
        // This acts as if the earlier operation had failed for that long, until now.
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
