//! Registry credentials for the daemon, from the same sources as hakobi's own.

use async_trait::async_trait;

use crate::engine::buildkit::{CredentialSource, Credentials};
use crate::registry::{Credential, Registries};

/// The session's credentials.
pub struct SessionCredentials(pub Registries);

#[async_trait]
impl CredentialSource for SessionCredentials {
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, String> {
        let found = self.0.docker_auth(host).await.map_err(|error| error.to_string())?;
        Ok(found.and_then(|found| match found.credential {
            Credential::Basic { username, password } => Some(Credentials { username, secret: password }),
            Credential::IdentityToken(secret) => Some(Credentials { username: String::new(), secret }),
            // A bearer token has no form as a user and password.
            Credential::RegistryToken(_) => None,
        }))
    }
}
