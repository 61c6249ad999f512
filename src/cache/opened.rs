//! The cache of a build, if it has one and as long as it is usable.

use crate::cache::fault::FaultText;
use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::error::Result;
use crate::event::Events;
use crate::output::{self, CacheReport};
use crate::push::Failure;
use crate::registry::Registries;
use crate::settings::{BuildSettings, CacheMode, CacheSettings};

/// The store of a run, with its faults.
pub struct OpenedCache<'a> {
    /// `None` if the store is not usable.
    pub session: Option<CacheSession>,
    pub faults: CacheFaults<'a>,
}

impl<'a> OpenedCache<'a> {
    /// Opens the store. A fault is a warning and a colder build. `is_checked` if the run has found out that it may push.
    ///
    /// # Errors
    /// If the cache is required and cannot be opened.
    #[tracing::instrument(name = "open", level = "info", skip_all, fields(cache = %settings.shown))]
    pub async fn open(
        settings: &'a CacheSettings,
        build: &BuildSettings,
        registries: &Registries,
        events: &'a Events,
        is_checked: bool,
    ) -> Result<Self> {
        let faults = CacheFaults::new(settings, events);
        let session = match CacheSession::for_build(settings, build, registries, events.hidden(), is_checked).await {
            Ok(session) => Some(session),
            Err(error) => {
                faults.warn_without("continuing", &error)?;
                None
            }
        };
        Ok(Self { session, faults })
    }
}

/// Why the store did not supply an image.
pub enum CacheRefusal {
    /// Layers are missing.
    Lacking,
    /// The store cannot be read.
    Broken(String),
    /// The records of the layers are wrong.
    Otherwise(String),
}

/// Returns the store's part of the report.
pub fn cache_report(settings: &CacheSettings) -> CacheReport {
    CacheReport {
        url: settings.shown.clone(),
        scope: settings.scope.clone(),
        fallbacks: settings.fallbacks.clone(),
        mode: match settings.mode {
            CacheMode::ReadWrite => output::CacheMode::ReadWrite,
            CacheMode::ReadOnly => output::CacheMode::ReadOnly,
        },
        warnings: Vec::new(),
    }
}

/// The cache of a build, usable or not.
#[derive(Default)]
pub struct BuildCache<'a> {
    /// `None` if the build has none.
    pub opened: Option<OpenedCache<'a>>,
    /// Whether the build can start again: hakobi cannot send a context from stdin twice.
    pub is_repeatable: bool,
}

impl BuildCache<'_> {
    /// Returns the store, or `None` if it is not usable.
    pub fn usable(&self) -> Option<(&CacheSession, &CacheFaults<'_>)> {
        let store = self.opened.as_ref()?;
        Some((store.session.as_ref()?, &store.faults))
    }

    /// Warns if hakobi failed to read an object of the store and BuildKit continued without it.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn warn_of_unread(&self) -> Result<()> {
        let Some((session, faults)) = self.usable() else { return Ok(()) };
        // hakobi has already reported damage, and why it gave the store up.
        match session.unread().filter(|_| !session.is_distrusted() && !faults.gave_up()) {
            Some(why) => faults.warn("failed to read part of", &FaultText(&why, None)),
            None => Ok(()),
        }
    }

    /// Waits until a layer of the store turns out to be damaged. Never returns if there is no store.
    pub async fn found_damage(&self) {
        match self.usable() {
            Some((session, _)) => session.found_damaged().await,
            None => std::future::pending().await,
        }
    }

    /// Returns whether hakobi gave the store up. True also if there is no store.
    pub fn gave_cache_up(&self) -> bool {
        self.usable().is_none_or(|(_, faults)| faults.gave_up())
    }

    /// Returns whether hakobi still uses the store.
    pub fn trusts_cache(&self) -> bool {
        self.usable().is_some_and(|(session, faults)| !faults.gave_up() && !session.is_distrusted())
    }

    /// Returns why a base image's layer did not pass through the endpoint, or `None` if all did.
    pub async fn not_passed(&self) -> Option<String> {
        let passes =
            self.usable().and_then(|(session, _)| session.own()).is_none_or(crate::local_registry::CacheRepository::passes);
        if passes { None } else { Some(self.cannot_pass().await) }
    }

    /// Waits until a base image's layer does not pass through the endpoint, and returns why. Never returns if all pass.
    pub async fn cannot_pass(&self) -> String {
        match self.usable().and_then(|(session, _)| session.own()) {
            Some(own) => own.cannot_pass().await,
            None => std::future::pending().await,
        }
    }

    /// Returns whether the store caused the failure of a solve.
    pub fn is_cache_failure(&self, message: &str) -> bool {
        let Some((session, _)) = self.usable() else { return false };
        let is_named = session.own().is_some_and(|own| own.is_named_in(message));
        is_named
            || session.is_distrusted()
            || session.references().any(|(_, reference)| message.contains(&*reference.repository.path))
    }

    /// Returns whether a solve failed because it still waited for a layer of the store, or of the pull-through, after hakobi
    /// stopped using that.
    pub fn is_left_over(&self, message: &str) -> bool {
        // The messages of containerd, of Docker, and of a store that the daemon reads through the session.
        const FETCHING: [&str; 4] = ["could not fetch content descriptor", "failed to copy", "is damaged", "blob"];
        let broken = |session: &CacheSession| {
            session.is_distrusted() || !session.own().is_none_or(crate::local_registry::CacheRepository::passes)
        };
        self.usable().is_some_and(|(session, _)| broken(session)) && FETCHING.iter().any(|words| message.contains(words))
    }

    /// Gives the store up, because it did not supply what its records name.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn cache_refused(&self, why: &CacheRefusal) -> Result<()> {
        let Some((_, faults)) = self.usable() else { return Ok(()) };
        match why {
            CacheRefusal::Lacking => {
                faults.give_up();
                faults.warn(
                    "layers are missing from",
                    &FaultText("they were removed", Some("no action is needed: the next run has them again")),
                )
            }
            CacheRefusal::Broken(why) => self.cache_failed(why),
            CacheRefusal::Otherwise(why) => {
                faults.give_up();
                faults.mark_damage_reported();
                let why = format!("its records are invalid: {why}");
                faults.warn_without("restarting the build", &FaultText(&why, None))
            }
        }
    }

    /// Returns whether a push failed because the store did not supply a layer, so that the build must start again without it. Warns
    /// of that.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn failed_by_cache(&self, failure: &Failure) -> Result<bool> {
        let Some((session, faults)) = self.usable() else { return Ok(false) };
        let by_store = failure.source().is_some_and(|from| session.repositories().contains(from));
        // A store that hakobi gave up once is not the cause again.
        if !by_store || faults.left_out() || !self.is_repeatable {
            return Ok(false);
        }
        self.cache_failed(failure.error.message())?;
        faults.leave_out();
        Ok(true)
    }

    pub fn cache_failed(&self, message: &str) -> Result<()> {
        let Some((session, faults)) = self.usable() else { return Ok(()) };
        faults.give_up();
        let (why, hint) = match session.is_distrusted() {
            false => (message.to_owned(), None),
            true => {
                faults.mark_damage_reported();
                let damaged: Vec<String> = session.damaged().iter().map(ToString::to_string).collect();
                (format!("damaged: {}", damaged.join(", ")), Some("remove damaged objects with `hakobi cache verify --repair`"))
            }
        };
        faults.warn_without("restarting the build", &FaultText(&why, hint))
    }

    /// Makes visible to other runs what this run wrote. A fault is a warning.
    ///
    /// # Errors
    /// If the cache is required.
    pub async fn flush(&self) -> Result<()> {
        let Some((session, faults)) = self.usable().filter(|(session, _)| session.writes()) else { return Ok(()) };
        match session.flush().await {
            Ok(()) => Ok(()),
            Err(error) => faults.warn_unsaved(&error),
        }
    }

    /// Warns of damaged or invalid objects in the store, unless hakobi has already done so. Each of these was a miss.
    ///
    /// # Errors
    /// If the cache is required.
    pub fn warn_of_damage(&self) -> Result<()> {
        let Some((session, faults)) = self.usable() else { return Ok(()) };
        let damaged = session.damaged().into_iter().map(|digest| format!("the blob {digest}"));
        let mut all: Vec<String> = damaged.chain(session.unusable().into_iter().map(|name| name.to_string())).collect();
        if all.is_empty() || faults.mark_damage_reported() {
            return Ok(());
        }
        all.sort();
        let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
        let after = if session.writes() { "; this build replaced those that it created again" } else { "" };
        faults.warn("found damaged objects in", &FaultText(&format!("{}{more}{after}", all.swap_remove(0)), None))
    }
}
