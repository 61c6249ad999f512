//! `--debug` and `HAKOBI_LOG`: shows hakobi's decisions, stages and requests as lines of the display.
//!
//! Each line is an event. Only the display therefore writes to standard error, and no line shows a hidden value. Events of other
//! crates are never shown: some contain headers and so passwords.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::error::{Error, Result};
use crate::event::{Event, Events};

/// The crate whose events are shown.
const OWN: &str = "hakobi";

/// Shows the events that these directives select, until the process ends. Examples: `debug`, or `info,hakobi::registry=debug`.
///
/// # Errors
/// If the directives are invalid.
pub fn show_debug(directives: &str, events: &Events) -> Result<()> {
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(Lines(events.clone()))
        .with_filter(own(directives)?);
    // An error only means that this process already has a subscriber, as in tests that run hakobi several times.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(())
}

/// Parses the directives, and restricts them to hakobi's own events.
fn own(directives: &str) -> Result<Targets> {
    let wrong = |why: String| {
        Error::usage(format!("invalid value `{directives}` for HAKOBI_LOG: {why}"))
            .hint(format!("use a level (error, warn, info, debug or trace) or a list like `info,{OWN}::registry=debug`"))
    };
    let asked: Targets = directives.parse().map_err(|error| wrong(format!("{error}")))?;
    let mut own = Targets::new().with_target(OWN, asked.default_level().unwrap_or(LevelFilter::OFF));
    for (target, level) in &asked {
        if target != OWN && !target.starts_with(&format!("{OWN}::")) {
            return Err(wrong(format!("`{target}` is not a module of hakobi")));
        }
        own = own.with_target(target, level);
    }
    Ok(own)
}

/// A writer that makes one event of each line.
struct Lines(Events);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.emit(Event::Debug(String::from_utf8_lossy(line).trim_end().to_owned()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn directives_are_levels_of_hakobis_modules() {
        let level = |directives: &str, target: &str| {
            let own = own(directives).expect("read");
            [Level::ERROR, Level::INFO, Level::DEBUG].into_iter().rfind(|level| own.would_enable(target, level))
        };
        let (one, other) = (format!("{OWN}::registry"), format!("{OWN}::plan"));
        assert_eq!(level("debug", &other), Some(Level::DEBUG));
        let both = format!("info,{one}=debug");
        assert_eq!((level(&both, &other), level(&both, &format!("{one}::host"))), (Some(Level::INFO), Some(Level::DEBUG)));
        assert_eq!(level("hakobi=info", &other), Some(Level::INFO));
        assert_eq!(level(&format!("{one}=debug"), &other), None);
        assert_eq!(level("trace", "hyper::client"), None, "others print what they send");
        for wrong in ["loud", "hyper=debug", "info,h2=trace", "hakobi=loud"] {
            assert!(own(wrong).is_err(), "{wrong}");
        }
    }
}
