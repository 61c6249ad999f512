//! The state that all hosts of a run share.

use tokio::sync::OnceCell;

use super::credentials::{DockerConfig, Found};
use super::ecr::{Ecr, EcrHost};
use super::error::Result;
use super::http::{Http, Trust};
use super::retry::Patience;
use crate::domain::RegistryHost;
use crate::event::Events;
use crate::settings::RegistrySettings;

/// The state that all hosts share.
pub(super) struct Shared {
    pub(super) settings: RegistrySettings,
    pub(super) events: Events,
    pub(super) patience: Patience,
    pub(super) http: Http,
    pub(super) ecr: Ecr,
    pub(super) config: OnceCell<DockerConfig>,
}

impl Shared {
    async fn config(&self) -> Result<&DockerConfig> {
        self.config.get_or_try_init(|| async { DockerConfig::load(self.settings.docker_config.as_deref()) }).await
    }

    /// Returns the credentials that Docker would use. A failed helper is a warning, as in Docker: many images are readable without
    /// a login.
    pub(super) async fn docker_login(&self, host: &RegistryHost) -> Result<Option<Found>> {
        let config = self.config().await?;
        match config.lookup(host).await {
            Err(error) if config.helper_of(host).is_some() => {
                self.events.warning(format!("{error}; continuing without a login to {host}"));
                Ok(None)
            }
            result => result,
        }
    }

    /// Returns the certificates that hakobi accepts at this host.
    pub(super) fn trust(&self, host: &RegistryHost) -> Trust {
        if host.is_loopback() {
            Trust::Loopback
        } else if self.settings.insecure.contains(host) {
            Trust::Insecure
        } else {
            Trust::Verified
        }
    }

    /// Returns the credentials of a registry. For ECR, hakobi first uses the AWS SDK: its credentials are the job's own, while the
    /// token in config.json may have expired. With `--registry-role` hakobi accepts only that role.
    pub(super) async fn login(&self, host: &RegistryHost) -> Result<Option<(Found, Option<String>)>> {
        let Some(ecr) = EcrHost::parse(host) else {
            return Ok(self.docker_login(host).await?.map(|found| (found, None)));
        };
        match self.ecr.login(host, &ecr).await {
            Ok(login) => {
                let found = Found { credential: login.credential, origin: "AWS".to_owned() };
                Ok(Some((found, login.proxy_endpoint)))
            }
            Err(error) if self.ecr.has_role(host) => Err(error),
            Err(error) => match self.docker_login(host).await? {
                Some(found) => Ok(Some((found, None))),
                None => Err(error),
            },
        }
    }
}
