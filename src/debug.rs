//! What `--debug` shows of a request, as a span. Without a subscriber, which `report` sets up, it costs nothing.

use std::pin::Pin;
use std::time::Instant;

use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// One attempt of a request to a registry, a store or the daemon. The span ends when it is dropped.
#[derive(Debug)]
pub struct Request {
    span: Span,
    began: Instant,
}

impl Request {
    /// A request that is sent now. Nothing of its URL is shown but the host and the path: a query may be a credential.
    #[must_use]
    pub fn new(service: &'static str, method: &str, host: &str, path: &str, attempt: u32) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let span =
            tracing::debug_span!("request", service, method, host, path, attempt, status = Empty, error = Empty, ms = Empty);
        Self { span, began: Instant::now() }
    }

    /// It was answered with this status.
    pub fn answered(&self, status: u16) {
        self.span.record("status", status);
        self.ended();
    }

    /// There was no answer, and why. The text must not show a URL's query.
    pub fn failed(&self, why: &str) {
        self.span.record("error", why);
        self.ended();
    }

    fn ended(&self) {
        self.span.record("ms", u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
    }

    /// Sends it. The future is in a box: those of a build's stages, which hold it, are large enough.
    ///
    /// # Errors
    /// Those of `sent`.
    pub fn send<T, E>(
        self,
        sent: impl Future<Output = Result<T, E>>,
        status: impl FnOnce(&T) -> u16,
        why: impl FnOnce(&E) -> String,
    ) -> Pin<Box<impl Future<Output = Result<T, E>>>> {
        Box::pin(async move {
            let answer = sent.instrument(self.span.clone()).await;
            if !self.span.is_disabled() {
                match &answer {
                    Ok(answer) => self.answered(status(answer)),
                    Err(error) => self.failed(&why(error)),
                }
            }
            answer
        })
    }
}
