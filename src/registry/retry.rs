//! How long is waited and how often is tried again: full jitter under one deadline.

use std::time::{Duration, Instant};

use rand::Rng as _;

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long one operation may fail without getting on, all attempts together.
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

/// The attempts of one operation.
#[derive(Debug)]
pub(super) struct Attempts {
    patience: Patience,
    began: Instant,
    since_progress: Instant,
    made: u32,
    in_a_row: u32,
}

impl Attempts {
    /// None made yet.
    pub(super) fn new(patience: &Patience) -> Self {
        let now = Instant::now();
        Self { patience: patience.clone(), began: now, since_progress: now, made: 1, in_a_row: 0 }
    }

    /// How many were made.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// For how long.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The operation got on: the deadline begins anew.
    pub(super) fn progressed(&mut self) {
        self.since_progress = Instant::now();
        self.in_a_row = 0;
    }

    /// Pauses before another attempt; `false` where the deadline leaves none. `asked` is what the registry asked for.
    pub(super) async fn again(&mut self, asked: Option<Duration>) -> bool {
        let left = self.patience.total.saturating_sub(self.since_progress.elapsed());
        let pause = self.pause(asked);
        if pause >= left {
            return false;
        }
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
        let mut attempts = Attempts::new(&patience);
        attempts.in_a_row = 40;
        assert!((0..100).all(|_| attempts.pause(None) <= patience.longest_pause));
        attempts.in_a_row = 0;
        assert!(attempts.pause(Some(Duration::from_secs(3))) >= Duration::from_secs(3));
        assert!(!attempts.again(Some(Duration::from_secs(6))).await, "longer than the deadline");
        assert!(attempts.again(Some(Duration::from_millis(5))).await);
        assert_eq!(attempts.made(), 2);
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
