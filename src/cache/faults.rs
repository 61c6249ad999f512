//! Judges the faults of a run's cache: each is a warning and a colder build, or ends a run that requires its cache.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cache::fault::{Fault, with_remedy};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::settings::CacheSettings;
use crate::store::GIVEN_UP;

/// The faults of a run's store: warnings, or the end of a run that requires it.
pub struct CacheFaults<'a> {
    pub settings: &'a CacheSettings,
    pub events: &'a Events,
    pub warnings: Mutex<Vec<String>>,
    pub gave_up: AtomicBool,
    pub left_out: AtomicBool,
    pub damage_reported: AtomicBool,
    pub lost_layers_noted: AtomicBool,
}

impl<'a> CacheFaults<'a> {
    pub fn new(settings: &'a CacheSettings, events: &'a Events) -> Self {
        Self {
            settings,
            events,
            warnings: Mutex::default(),
            gave_up: AtomicBool::new(false),
            left_out: AtomicBool::new(false),
            damage_reported: AtomicBool::new(false),
            lost_layers_noted: AtomicBool::new(false),
        }
    }

    /// Warns that the cache does not have this build.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn warn_unsaved(&self, why: &impl Fault) -> Result<()> {
        self.warn("failed to save this build to", why)
    }

    /// Warns that the run goes on without the cache: `doing` says how (`continuing`, `restarting the build`).
    ///
    /// # Errors
    /// If the cache is required.
    pub fn warn_without(&self, doing: &str, why: &impl Fault) -> Result<()> {
        self.judge(&format!("{doing} without"), "failed to use", why)
    }

    /// Warns of a fault: `attempt` says what failed, up to the cache's name (`failed to save this build to`).
    ///
    /// # Errors
    /// [`Kind::Cache`] with the same text if the run requires its cache.
    pub fn warn(&self, attempt: &str, why: &impl Fault) -> Result<()> {
        self.judge(attempt, attempt, why)
    }

    /// Warns that cache mounts stay empty.
    ///
    /// # Errors
    /// [`Kind::Cache`] with the same text if the run requires its cache.
    pub fn warn_of_mounts(&self, text: String) -> Result<()> {
        if self.settings.required {
            return Err(Error::new(Kind::Cache, text));
        }
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
        self.events.warning(text);
        Ok(())
    }

    fn judge(&self, warning: &str, failure: &str, why: &impl Fault) -> Result<()> {
        let text = |attempt| format!("{attempt} the cache {}: {why}", self.settings.shown);
        let remedy = why.remedy();
        if self.settings.required {
            return Err(Error::new(Kind::Cache, text(failure)).hint_if(remedy));
        }
        let text = with_remedy(text(warning), remedy.as_deref());
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        // The user already knows why hakobi gave the store up.
        if !warnings.is_empty() && text.contains(GIVEN_UP) {
            return Ok(());
        }
        warnings.push(text.clone());
        drop(warnings);
        self.events.warning(text);
        Ok(())
    }

    /// From now on, hakobi does not use the store's records.
    pub fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    pub fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Notes that the build started again without the store, after the push had begun.
    pub fn leave_out(&self) {
        self.left_out.store(true, Ordering::Relaxed);
    }

    /// Notes that the damage was reported. Returns whether it was reported before.
    pub fn mark_damage_reported(&self) -> bool {
        self.damage_reported.swap(true, Ordering::Relaxed)
    }

    /// Notes once that the cache lacks layers of its records. That is no fault: they may have expired.
    pub fn note_lost_layers(&self) {
        if !self.lost_layers_noted.swap(true, Ordering::Relaxed) {
            self.events.note("cached layers are missing; rebuilding the steps that need them");
        }
    }

    pub fn left_out(&self) -> bool {
        self.left_out.load(Ordering::Relaxed)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
