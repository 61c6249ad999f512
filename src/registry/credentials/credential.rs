//! Credentials of registries, and the hosts that they belong to.

use std::fmt;

use crate::domain::RegistryHost;

/// The key of Docker Hub in `config.json`: for historical reasons the URL of its first version.
pub(in crate::registry) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A credential for a registry. hakobi never prints it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token of an OAuth2 token service.
    IdentityToken(String),
    /// A bearer token that hakobi sends unchanged.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// A credential and its origin, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// The origin: `config.json`, `docker-credential-ecr-login`, `AWS`.
    pub origin: String,
}

/// Returns the registry of a host that has several names: BuildKit and Docker use any of these names for Docker Hub.
#[must_use]
pub fn canonical_host(host: &str) -> RegistryHost {
    match hostname(host) {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" | "auth.docker.io" => {
            RegistryHost::new(RegistryHost::DOCKER_HUB)
        }
        name => RegistryHost::new(name),
    }
}

/// Returns the key under which Docker stores a registry's credentials.
pub(in crate::registry) fn key_of(host: &RegistryHost) -> &str {
    if host.is_docker_hub() { DOCKER_HUB_KEY } else { host.as_str() }
}

/// Returns the host of a key: `https://host/v1/` → `host` (docker/cli `credentials.ConvertToHostname`).
pub(in crate::registry) fn hostname(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}
