//! `GetAuthorizationToken`: a user and password for the registry, valid for some hours.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::{Ecr, EcrHost, api};
use crate::domain::RegistryHost;
use crate::registry::credentials::Credential;
use crate::registry::error::{Error, Kind, Result};

/// A login to an ECR registry.
#[derive(Clone)]
pub(in crate::registry) struct Login {
    /// The user `AWS` and the token.
    pub(in crate::registry) credential: Credential,
    /// The registry's address, as AWS states it.
    pub(in crate::registry) proxy_endpoint: Option<String>,
    renew_at: Instant,
    expires_at: Instant,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Ecr {
    /// Returns a login that remains valid for a while. Fetches a new login after half of the old one's lifetime.
    pub(in crate::registry) async fn login(&self, name: &RegistryHost, host: &EcrHost) -> Result<Login> {
        // hakobi makes the client before it takes the lock: slow credentials then delay only the first call to their own registry.
        let client = self.client(name, host).await;
        let mut logins = self.logins.lock().await;
        let now = Instant::now();
        let old = logins.get(name).cloned();
        if let Some(login) = &old
            && now < login.renew_at
        {
            return Ok(login.clone());
        }
        match fetch(&client, name, host).await {
            Ok(login) => {
                logins.insert(name.clone(), login.clone());
                Ok(login)
            }
            // The old login still works. The next request tries again.
            Err(error) => old.filter(|login| now < login.expires_at).ok_or(error),
        }
    }

    /// Forgets a login that a registry refused, so that the next login is new. Keeps another login that was fetched meanwhile.
    pub(in crate::registry) async fn forget(&self, name: &RegistryHost, refused: &Credential) {
        let mut logins = self.logins.lock().await;
        if logins.get(name).is_some_and(|login| login.credential == *refused) {
            logins.remove(name);
        }
    }
}

async fn fetch(client: &aws_sdk_ecr::Client, name: &RegistryHost, host: &EcrHost) -> Result<Login> {
    let what = "log in to ECR";
    // `registryIds` is deprecated: a token is valid for every registry that its role may use.
    let _ = host;
    let answer = client
        .get_authorization_token()
        .send()
        .await
        .map_err(|error| api::failed(what, name, "ecr:GetAuthorizationToken", &error))?;
    let bad = |cause: &str| Error::on(Kind::Credentials, what, name).because(cause);
    let data = answer.authorization_data().first().ok_or_else(|| bad("the answer of AWS has no token"))?;
    let token = data.authorization_token().ok_or_else(|| bad("the answer of AWS has no token"))?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(token).map_err(|_| bad("the token is not base64"))?;
    let text = String::from_utf8(decoded).map_err(|_| bad("the token is not text"))?;
    let (username, password) = text.split_once(':').ok_or_else(|| bad("the token is not `user:password`"))?;
    let now = Instant::now();
    let life = data.expires_at().map_or(Duration::from_secs(12 * 3600), |at| {
        let seconds = at.as_secs_f64() - jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
    });
    Ok(Login {
        credential: Credential::Basic { username: username.to_owned(), password: password.to_owned() },
        proxy_endpoint: data.proxy_endpoint().map(str::to_owned),
        renew_at: now + life / 2,
        expires_at: now + life,
    })
}
