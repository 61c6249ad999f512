//! Credentials of registries for BuildKit's session (buildkit `session/auth`) and for `hakobi login`.

use super::credentials::{Credential, Found, canonical_host};
use super::ecr::EcrHost;
use super::error::Result;
use super::registries::Registries;
use crate::domain::RegistryHost;

impl Registries {
    /// Returns the credentials of a registry, by any of its names (`registry-1.docker.io`, `https://index.docker.io/v1/`). Returns
    /// `None` if there are none: hakobi then uses the registry without a login.
    ///
    /// # Errors
    /// If config.json is invalid, or AWS provides no login to an ECR registry.
    pub async fn docker_auth(&self, host: &str) -> Result<Option<Found>> {
        let host = canonical_host(host);
        Ok(self.shared().login(&host).await?.map(|(found, _)| found))
    }

    /// Returns the login to an ECR registry from AWS. Returns `None` for any other registry.
    ///
    /// # Errors
    /// If AWS provides no login.
    pub async fn aws_login(&self, host: &RegistryHost) -> Result<Option<Credential>> {
        let Some(ecr) = EcrHost::parse(host) else { return Ok(None) };
        Ok(Some(self.shared().ecr.login(host, &ecr).await?.credential))
    }

    /// Tests the login of a registry. Returns the credentials, or `None` if there are none and the registry requires none.
    ///
    /// # Errors
    /// If the registry refuses the login or is unreachable.
    pub async fn check_login(&self, host: &RegistryHost) -> Result<Option<Found>> {
        use super::auth::Scope;
        let found = self.shared().login(host).await?.map(|(found, _)| found);
        let registry = self.host(host);
        let url = registry.url("").await?;
        let limit = std::time::Duration::from_secs(30);
        let nowhere = crate::domain::Repository { host: host.clone(), path: String::new() };
        let sent = registry.send("log in", &nowhere, &Scope::none(), &url, limit, reqwest::Client::get).await;
        match sent.map_err(|error| error.without_repository())? {
            super::reply::Reply::Ok(_) => Ok(found),
            super::reply::Reply::Refused(refusal) => Err(refusal.error("log in", &nowhere).without_repository()),
        }
    }
}
