//! The order of things, and nothing else: sole owner of what comes after what.

mod build;
mod cache;
mod call;
mod kept;
mod outputs;
mod promote;
mod push;
mod release;
mod saving;

pub use build::{Built, build};
pub use promote::promote;
pub use push::push;

use crate::engine::{EngineInfo, StoreKind};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::report::{self, CacheReport, EngineReport, Store, Transport};
use crate::settings::{CacheMode, CacheSettings};

/// What the report says of the daemon. Images go out of it through the loopback registry.
fn engine_report(info: &EngineInfo, pushes: bool) -> EngineReport {
    EngineReport {
        version: info.version.clone(),
        store: if info.store == StoreKind::Containerd { Store::Containerd } else { Store::Graphdriver },
        transport: if pushes { Transport::Registry } else { Transport::None },
    }
}

/// What the report says of the store.
fn cache_report(settings: &CacheSettings) -> CacheReport {
    CacheReport {
        url: settings.shown.clone(),
        scope: settings.scope.clone(),
        fallbacks: settings.fallbacks.clone(),
        mode: match settings.mode {
            CacheMode::ReadWrite => report::CacheMode::ReadWrite,
            CacheMode::ReadOnly => report::CacheMode::ReadOnly,
        },
        warnings: Vec::new(),
    }
}

/// A fault of the store: a warning, or the end of a run that requires it.
fn cache_fault(
    settings: &CacheSettings,
    events: &Events,
    what: &str,
    why: &impl std::fmt::Display,
    hint: Option<&str>,
) -> Result<()> {
    let text = format!("the cache {} {what}: {why}", settings.shown);
    match (settings.required, hint) {
        (true, Some(hint)) => Err(Error::new(Kind::Cache, text).hint(hint)),
        (true, None) => Err(Error::new(Kind::Cache, text)),
        (false, Some(hint)) => {
            events.warning(format!("{text} ({hint})"));
            Ok(())
        }
        (false, None) => {
            events.warning(text);
            Ok(())
        }
    }
}
