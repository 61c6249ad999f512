//! All registries of a run: the addresses, logins and tokens of all hosts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::client::Client;
use super::ecr::Ecr;
use super::home::Home;
use super::host::Host;
use super::http::{Http, install_crypto};
use super::retry::Patience;
use super::shared::Shared;
use crate::aws::AwsSource;
use crate::domain::{RegistryHost, Repository};
use crate::event::Events;
use crate::settings::RegistrySettings;

/// The options that only tests change.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The time limits of the client.
    pub patience: Patience,
    /// The source of AWS's configuration.
    pub aws: AwsSource,
}

/// All registries of a run. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    shared: Arc<Shared>,
    hosts: Arc<Mutex<HashMap<RegistryHost, Arc<Host>>>>,
    own: Arc<Mutex<HashMap<Repository, Arc<dyn Home>>>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registries")
    }
}

impl Registries {
    /// Creates it without reading files or sending requests.
    #[must_use]
    pub fn new(settings: &RegistrySettings, events: Events) -> Self {
        Self::with(settings, events, Options::default())
    }

    /// Creates it with other time limits, or another AWS.
    #[must_use]
    pub fn with(settings: &RegistrySettings, events: Events, options: Options) -> Self {
        install_crypto();
        let shared = Shared {
            ecr: Ecr::new(options.aws, settings.roles.clone()),
            settings: settings.clone(),
            events,
            patience: options.patience,
            http: Http::default(),
            config: OnceCell::new(),
        };
        Self { shared: Arc::new(shared), hosts: Arc::default(), own: Arc::default() }
    }

    /// Returns the client of a repository.
    #[must_use]
    pub fn repository(&self, repository: &Repository) -> Client {
        let mirror = self.mirror_of(repository).map(|mirror| (self.host(&mirror.host), mirror));
        Client::new(self.host(&repository.host), repository.clone(), mirror)
    }

    /// Replaces a registry's repository of the same name by this store.
    pub fn stand_in(&self, home: Arc<dyn Home>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert(home.repository().clone(), home);
    }

    /// Returns the store of this name's images: the stand-in, or the client of the registry.
    #[must_use]
    pub fn home(&self, repository: &Repository) -> Arc<dyn Home> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        own.unwrap_or_else(|| Arc::new(self.repository(repository)))
    }

    /// Returns whether a store stands in for a registry under this name. Such a name has no meaning outside this run.
    #[must_use]
    pub fn is_own(&self, repository: &Repository) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains_key(repository)
    }

    /// Returns the repository behind a pull-through cache that replaces this one. Returns `None` if there is none.
    fn mirror_of(&self, repository: &Repository) -> Option<Repository> {
        let url = self.shared.settings.mirrors.get(&repository.host)?;
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
        let (host, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        let path = if prefix.is_empty() { repository.path.clone() } else { format!("{prefix}/{}", repository.path) };
        Some(Repository { host: RegistryHost::new(host), path })
    }

    pub(super) fn host(&self, name: &RegistryHost) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(name.clone()).or_insert_with(|| Arc::new(Host::new(name.clone(), Arc::clone(&self.shared)))))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::Credential;
    use super::super::error::Kind;
    use super::*;

    #[tokio::test]
    async fn no_password_goes_to_a_token_service_without_tls() {
        let registries = Registries::with(&RegistrySettings::default(), Events::none(), Options::default());
        let host = registries.host(&RegistryHost::new("ghcr.io"));
        let login = Credential::Basic { username: "u".to_owned(), password: "p".to_owned() };
        let error = host.token("http://tokens.example/token", "s", &[], Some(&login)).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.to_string().contains("is not HTTPS"), "{error}");
    }
}
