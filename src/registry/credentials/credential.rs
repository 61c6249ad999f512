//! Credentials of registries, and the hosts that they are of.

use std::fmt;

use crate::domain::RegistryHost;

/// Docker Hub's key in `config.json`, for historical reasons that of its first version.
pub(in crate::registry) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry is logged in to with. Never printed.
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
    /// A bearer token that is used as it is.
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

/// A credential and where it was found, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What to log in with.
    pub credential: Credential,
    /// `config.json`, `docker-credential-ecr-login`, `AWS`.
    pub origin: String,
}

/// The registry that a host belongs to, where it is known by several names: BuildKit and Docker ask for Docker Hub under any
/// of these.
#[must_use]
pub fn canonical_host(host: &str) -> RegistryHost {
    match hostname(host) {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" | "auth.docker.io" => {
            RegistryHost::new(RegistryHost::DOCKER_HUB)
        }
        name => RegistryHost::new(name),
    }
}

/// The key that Docker keeps a registry's credentials under.
pub(in crate::registry) fn key_of(host: &RegistryHost) -> &str {
    if host.is_docker_hub() { DOCKER_HUB_KEY } else { host.as_str() }
}

/// `https://host/v1/` → `host` (docker/cli `credentials.ConvertToHostname`).
pub(in crate::registry) fn hostname(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}
