//! The order of things, and nothing else: sole owner of what comes after what.

mod ahead;
mod appending;
mod assembling;
mod build;
mod cache;
mod call;
mod cold;
mod compiling;
mod contexts;
mod doctor;
mod hiding;
mod images;
mod indexing;
mod init;
mod job;
mod kept;
mod leftovers;
mod loading;
mod metadata_only;
mod moving;
mod outputs;
mod plan;
mod planned;
mod planning;
mod promote;
mod proving;
mod push;
mod recording;
mod release;
mod remembering;
mod remotes;
mod saving;
mod solving;
mod tarballs;
mod transport;
mod unchanged;
mod unpack;
mod upkeep;
mod verifying;
mod warm;

pub use build::{Built, build};
pub use doctor::doctor;
pub use images::{restore, save};
pub use init::init;
pub use plan::plan;
pub use promote::{history, promote};
pub use push::push;
pub use tarballs::{export, import};
pub use upkeep::{Answer, cache};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use self::transport::Way;
use crate::domain::{ImageRef, Made};
use crate::engine::{Docker, EngineInfo, StoreKind};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::report::{self, CacheReport, EngineReport, Store, Transport};
use crate::settings::{CacheMode, CacheSettings};
use crate::store::GIVEN_UP;
use crate::transfer::Scratch;

/// What the report says of the daemon.
fn engine_report(info: &EngineInfo, way: Option<Way>) -> EngineReport {
    EngineReport {
        version: info.version.clone(),
        store: if info.store == StoreKind::Containerd { Store::Containerd } else { Store::Graphdriver },
        transport: match way {
            Some(Way::Registry) => Transport::Registry,
            Some(Way::Archive) => Transport::Archive,
            None => Transport::None,
        },
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

/// A place for layers on their way; it goes with what it gives.
fn room(kind: Kind) -> Result<Scratch> {
    Scratch::new().map_err(|error| {
        let error = Error::new(kind, "cannot create a temporary directory for layers").because(&error);
        error.hint("set TMPDIR to another directory")
    })
}

/// What is known of an image that the daemon has, besides its ID. A containerd store may hand over one image of an index.
async fn had(docker: &Docker, info: &EngineInfo, image: &ImageRef) -> Result<Made> {
    let diff_ids = match info.store {
        StoreKind::Containerd => docker.image_layers(&image.to_string()).await?.unwrap_or_default(),
        StoreKind::GraphDriver => Vec::new(),
    };
    Ok(Made { diff_ids, ..Made::default() })
}

/// What is amiss with the cache, and what the user can do about it: errors of all rooms, and words of the pipeline's own.
trait Fault: std::fmt::Display {
    /// What to do about it. `None` if nothing is known.
    fn remedy(&self) -> Option<String>;
}

impl Fault for Error {
    fn remedy(&self) -> Option<String> {
        self.hint_text().map(str::to_owned)
    }
}

impl Fault for crate::store::Error {
    fn remedy(&self) -> Option<String> {
        self.hint_text().map(str::to_owned)
    }
}

impl Fault for crate::registry::Error {
    fn remedy(&self) -> Option<String> {
        self.hint()
    }
}

impl Fault for serde_json::Error {
    fn remedy(&self) -> Option<String> {
        None
    }
}

/// A fault in words, with or without a remedy.
struct Amiss<'a>(&'a str, Option<&'a str>);

impl std::fmt::Display for Amiss<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Fault for Amiss<'_> {
    fn remedy(&self) -> Option<String> {
        self.1.map(str::to_owned)
    }
}

/// A fault of the cache that ends a run, with its hint.
fn cache_error(what: &str, why: &impl Fault) -> Error {
    Error::new(Kind::Cache, format!("{what}: {why}")).hint_if(why.remedy())
}

/// A fault of the cache as an error, with its hint.
fn cache_fault<F: Fault>(why: F) -> Error {
    Error::new(Kind::Cache, why.to_string()).hint_if(why.remedy())
}

/// A fault in a warning: with its hint in brackets.
fn with_remedy(text: String, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{text} ({remedy})"),
        None => text,
    }
}

/// The faults of a run's store: warnings, or the end of a run that requires it.
struct CacheFaults<'a> {
    settings: &'a CacheSettings,
    events: &'a Events,
    told: Mutex<Vec<String>>,
    gave_up: AtomicBool,
    left_out: AtomicBool,
    told_damage: AtomicBool,
}

impl<'a> CacheFaults<'a> {
    fn new(settings: &'a CacheSettings, events: &'a Events) -> Self {
        Self {
            settings,
            events,
            told: Mutex::default(),
            gave_up: AtomicBool::new(false),
            left_out: AtomicBool::new(false),
            told_damage: AtomicBool::new(false),
        }
    }

    fn tell(&self, what: &str, why: &impl Fault) -> Result<()> {
        let text = format!("the cache {} {what}: {why}", self.settings.shown);
        let remedy = why.remedy();
        if self.settings.required {
            return Err(Error::new(Kind::Cache, text).hint_if(remedy));
        }
        let text = with_remedy(text, remedy.as_deref());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Why it was given up was told, whatever else it is asked for.
        if !told.is_empty() && text.contains(GIVEN_UP) {
            return Ok(());
        }
        told.push(text.clone());
        drop(told);
        self.events.warning(text);
        Ok(())
    }

    /// What the store remembers is not used from here on.
    fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// The build began again without the store, after it was to be pushed already.
    fn leave_out(&self) {
        self.left_out.store(true, Ordering::Relaxed);
    }

    /// What is damaged is told now; says whether it was told before.
    fn tells_damage(&self) -> bool {
        self.told_damage.swap(true, Ordering::Relaxed)
    }

    fn left_out(&self) -> bool {
        self.left_out.load(Ordering::Relaxed)
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
