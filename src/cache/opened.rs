//! The cache of a build, if it has one and as long as that can be used.

use crate::cache::fault::FaultText;
use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::error::Result;
use crate::event::Events;
use crate::output::{self, CacheReport};
use crate::push::Failure;
use crate::registry::Registries;
use crate::settings::{BuildSettings, CacheMode, CacheSettings};

/// The store of a run, with what went wrong with it.
pub struct OpenedCache<'a> {
    /// As long as it can be used.
    pub session: Option<CacheSession>,
    pub faults: CacheFaults<'a>,
}

impl<'a> OpenedCache<'a> {
    /// Opens it: a fault is a warning and a colder build, unless it is required.
    #[tracing::instrument(name = "open", level = "info", skip_all, fields(cache = %settings.shown))]
    pub async fn open(
        settings: &'a CacheSettings,
        build: &BuildSettings,
        registries: &Registries,
        events: &'a Events,
    ) -> Result<Self> {
        let faults = CacheFaults::new(settings, events);
        let session = match CacheSession::for_build(settings, build, registries, events.hidden()).await {
            Ok(session) => Some(session),
            Err(error) => {
                faults.warn("continuing without", &error)?;
                None
            }
        };
        Ok(Self { session, faults })
    }
}

/// Why the store did not give an image.
pub enum CacheRefusal {
    /// Layers are gone.
    Lacking,
    /// It cannot be read.
    Broken(String),
    /// What was remembered of the layers is not so.
    Otherwise(String),
}

/// What the report says of the store.
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

/// The cache of a build, whatever became of it.
#[derive(Default)]
pub struct BuildCache<'a> {
    /// `None` if the build has none.
    pub opened: Option<OpenedCache<'a>>,
    /// Whether the build can begin again: a stream that was read cannot be sent again.
    pub is_repeatable: bool,
}

impl BuildCache<'_> {
    /// The store, as long as it can be used.
    pub fn usable(&self) -> Option<(&CacheSession, &CacheFaults<'_>)> {
        let store = self.opened.as_ref()?;
        Some((store.session.as_ref()?, &store.faults))
    }

    /// Says so if something of the store could not be read that BuildKit went on without.
    pub fn store_was_read(&self) -> Result<()> {
        let Some((session, faults)) = self.usable() else { return Ok(()) };
        // What is damaged, and why the store was given up, was told when it was found.
        match session.unread().filter(|_| !session.is_distrusted() && !faults.gave_up()) {
            Some(why) => faults.warn("failed to read part of", &FaultText(&why, None)),
            None => Ok(()),
        }
    }

    /// Waits until a layer of the store turns out to be damaged: for ever, where there is no store.
    pub async fn store_damaged(&self) {
        match self.usable() {
            Some((session, _)) => session.found_damaged().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the store was given up.
    pub fn gave_store_up(&self) -> bool {
        self.usable().is_none_or(|(_, faults)| faults.gave_up())
    }

    /// Whether the store is used still.
    pub fn trusts_store(&self) -> bool {
        self.usable().is_some_and(|(session, faults)| !faults.gave_up() && !session.is_distrusted())
    }

    /// Why a base image's layer did not come through the endpoint, if one did not.
    pub async fn not_passed(&self) -> Option<String> {
        let passes =
            self.usable().and_then(|(session, _)| session.own()).is_none_or(crate::local_registry::CacheRepository::passes);
        if passes { None } else { Some(self.cannot_pass().await) }
    }

    /// Waits until a base image's layer does not come through the endpoint, and says why: for ever, where all do.
    pub async fn cannot_pass(&self) -> String {
        match self.usable().and_then(|(session, _)| session.own()) {
            Some(own) => own.cannot_pass().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is the store that a solve failed by.
    pub fn blames_store(&self, message: &str) -> bool {
        let Some((session, _)) = self.usable() else { return false };
        let is_named = session.own().is_some_and(|own| own.is_named_in(message));
        is_named
            || session.is_distrusted()
            || session.references().any(|(_, reference)| message.contains(&*reference.repository.path))
    }

    /// Whether it is a layer that a solve still waited for after the store, or the way of base images through here, was left out.
    pub fn is_left_over(&self, message: &str) -> bool {
        // containerd's words, Docker's, and those of a store that is read through the session.
        const FETCHING: [&str; 4] = ["could not fetch content descriptor", "failed to copy", "is damaged", "blob"];
        let broken = |session: &CacheSession| {
            session.is_distrusted() || !session.own().is_none_or(crate::local_registry::CacheRepository::passes)
        };
        self.usable().is_some_and(|(session, _)| broken(session)) && FETCHING.iter().any(|words| message.contains(words))
    }

    /// The store did not give what it remembers: nothing of it is used from here on.
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
                faults.warn("restarting the build without", &FaultText(&why, None))
            }
        }
    }

    /// Whether a push failed because the store did not give a layer, so that the build is to begin again without it. That was told.
    pub fn failed_by_store(&self, failure: &Failure) -> Result<bool> {
        let Some((session, faults)) = self.usable() else { return Ok(false) };
        let by_store = failure.source().is_some_and(|from| session.repositories().contains(from));
        // What was given up once is not to blame again.
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
        faults.warn("restarting the build without", &FaultText(&why, hint))
    }

    /// Says so if something of the store was damaged or did not make sense, unless that was told. Each was a miss.
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
