//! Registry credentials for the daemon, from where hakobi's own come from.

use async_trait::async_trait;

use crate::engine::buildkit::{CredentialSource, Credentials};

/// The session's credentials.
pub struct SessionCredentials;

#[async_trait]
impl CredentialSource for SessionCredentials {
    async fn credentials(&self, _host: &str) -> Result<Option<Credentials>, String> {
        Ok(None)
    }
}
