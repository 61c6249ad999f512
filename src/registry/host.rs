//! One registry: its address, login and tokens, and its authorized requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Url};
use tokio::sync::{Mutex, OnceCell};

use super::auth::{Ask, Challenge, Scope, Token, fetch};
use super::credentials::Credential;
use super::ecr::EcrHost;
use super::error::{Error, Kind, Result};
use super::http::send;
use super::rate::Rate;
use super::reply::{Refusal, Reply};
use super::retry::{Attempts, Pulse};
use super::shared::Shared;
use super::start::{Start, find, network};
use crate::domain::{RegistryHost, Repository};

pub(super) struct Host {
    pub(super) name: RegistryHost,
    pub(super) ecr: Option<EcrHost>,
    pub(super) shared: Arc<Shared>,
    /// Whether the registry answers.
    pub(super) answers: Pulse,
    /// Whether the registry accepts bytes. A registry may answer all other requests and cut each upload.
    pub(super) uploads: Pulse,
    /// Whether it sends and accepts bytes fast enough.
    pub(super) rate: Rate,
    /// Whether the token service answers.
    tokens: Pulse,
    start: OnceCell<Start>,
    auth: Mutex<Auth>,
}

#[derive(Default)]
struct Auth {
    challenge: Option<Challenge>,
    asked: bool,
    /// The credentials from config.json and its helpers, after the first lookup. Not used for ECR.
    credential: Option<Option<Credential>>,
    tokens: HashMap<Scope, Token>,
}

/// The number of attempts at the first request to a registry.
const MOST_KNOCKS: u32 = 5;

/// The login of a request, so that a refusal can name it.
#[derive(Clone)]
pub(super) struct Used(Option<HeaderValue>);

impl Host {
    pub(super) fn new(name: RegistryHost, shared: Arc<Shared>) -> Self {
        Self {
            ecr: EcrHost::parse(&name),
            name,
            shared,
            answers: Pulse::default(),
            uploads: Pulse::default(),
            rate: Rate::default(),
            tokens: Pulse::default(),
            start: OnceCell::new(),
            auth: Mutex::default(),
        }
    }

    /// Returns the registry's address.
    pub(super) async fn start(&self) -> Result<&Start> {
        self.start
            .get_or_try_init(|| async {
                let mut attempts = Attempts::new(&self.shared.patience, &self.answers);
                loop {
                    let error = match find(&self.shared, &self.name).await {
                        Ok(start) => return Ok(start),
                        Err(error) => error,
                    };
                    // A user should not wait minutes for the error about a wrong name.
                    if !error.is_transient() || attempts.made() >= MOST_KNOCKS || !attempts.again(None).await {
                        return Err(attempts.ended(error));
                    }
                }
            })
            .await
    }

    /// Returns the URL of the registry's `/v2/` and this path.
    pub(super) async fn url(&self, path: &str) -> Result<Url> {
        let start = self.start().await?;
        start.base.join(&format!("/v2/{path}")).map_err(|_| Error::on(Kind::Refused, "parse the registry's name", &self.name))
    }

    /// Returns the HTTP client for this registry.
    pub(super) async fn client(&self) -> Result<&reqwest::Client> {
        self.shared.http.client(self.start().await?.trust)
    }

    /// Adds the login to a request. Adds none if the URL leads elsewhere (an upload's Location).
    pub(super) async fn authorize(&self, scope: &Scope, request: RequestBuilder) -> Result<(RequestBuilder, Used)> {
        Ok(match self.header(scope).await? {
            Some(header) => (request.header(AUTHORIZATION, header.clone()), Used(Some(header))),
            None => (request, Used(None)),
        })
    }

    /// Returns whether hakobi may send the login to this URL.
    pub(super) async fn is_own(&self, url: &Url) -> Result<bool> {
        Ok(self.start().await?.base.origin() == url.origin())
    }

    async fn header(&self, scope: &Scope) -> Result<Option<HeaderValue>> {
        let start = self.start().await?;
        let mut auth = self.auth.lock().await;
        if !auth.asked {
            auth.challenge = start.challenge.clone();
            auth.asked = true;
        }
        let text = match auth.challenge.clone() {
            None => return Ok(None),
            Some(Challenge::Basic) => match self.credential(&mut auth).await? {
                Some(Credential::Basic { username, password }) => {
                    use base64::Engine as _;
                    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
                }
                Some(Credential::RegistryToken(token)) => format!("Bearer {token}"),
                Some(Credential::IdentityToken(_)) | None => return Ok(None),
            },
            Some(Challenge::Bearer { realm, service }) => match auth.tokens.get(scope).filter(|token| token.is_fresh()) {
                Some(token) => format!("Bearer {}", token.token),
                None => {
                    let credential = self.credential(&mut auth).await?;
                    let token = self.token(&realm, &service, scope.words(), credential.as_ref()).await?;
                    let text = format!("Bearer {}", token.token);
                    auth.tokens.insert(scope.clone(), token);
                    text
                }
            },
        };
        let mut header = HeaderValue::try_from(text).map_err(|_| {
            Error::on(Kind::Credentials, "log in", &self.name)
                .because("the credentials contain characters that a header cannot carry")
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    async fn credential(&self, auth: &mut Auth) -> Result<Option<Credential>> {
        // ECR's login has its own lifetime and its own cache.
        if self.ecr.is_some() {
            return Ok(self.shared.login(&self.name).await?.map(|(found, _)| found.credential));
        }
        if let Some(credential) = &auth.credential {
            return Ok(credential.clone());
        }
        let credential = self.shared.docker_login(&self.name).await?.map(|found| found.credential);
        auth.credential = Some(credential.clone());
        Ok(credential)
    }

    /// Fetches a token. Makes a few attempts if the service fails temporarily.
    pub(super) async fn token(
        &self,
        realm: &str,
        service: &str,
        scopes: &[String],
        credential: Option<&Credential>,
    ) -> Result<Token> {
        use super::auth::NoToken;
        let what = "fetch a token";
        // A login helps only if the service refused.
        let bad = |cause: &str| Error::on(Kind::Refused, what, &self.name).because(cause);
        let url: Url = realm.parse().map_err(|_| bad("the address of the token service is not a URL"))?;
        let trust = match url.host_str().map(RegistryHost::new) {
            Some(host) if host.is_loopback() => super::http::Trust::Loopback,
            _ => self.shared.trust(&self.name),
        };
        if url.scheme() != "https" && trust == super::http::Trust::Verified && credential.is_some() {
            return Err(bad("the address of the token service is not HTTPS, so hakobi sends no password to it"));
        }
        // A refresh token is in the body, and a redirect would forward the body.
        let in_body = matches!(credential, Some(Credential::IdentityToken(_)));
        let client = if in_body { self.shared.http.own_client(trust)? } else { self.shared.http.client(trust)? };
        let mut attempts = Attempts::new(&self.shared.patience, &self.tokens);
        loop {
            let ask = Ask { realm: url.clone(), service, scopes, credential };
            let (transient, error) = match fetch(client, &ask, attempts.made()).await {
                Ok(token) => {
                    self.tokens.beat();
                    return Ok(token);
                }
                Err(NoToken::Broken(cause)) => (true, Error::on(Kind::Network, what, &self.name).because(&cause)),
                Err(NoToken::Refused(429, cause)) => (true, Error::on(Kind::TooManyRequests, what, &self.name).because(&cause)),
                Err(NoToken::Refused(500.., cause)) => (true, Error::on(Kind::Unavailable, what, &self.name).because(&cause)),
                Err(NoToken::Refused(0, cause)) => (false, bad(&cause)),
                Err(NoToken::Refused(_, cause)) => (false, Error::on(Kind::Unauthorized, what, &self.name).because(&cause)),
            };
            if !transient || attempts.made() >= 5 || !attempts.again(None).await {
                return Err(attempts.ended(error));
            }
        }
    }

    /// Forgets the parts of a login that the registry refused. Returns `false` if there is no other login to try.
    pub(super) async fn refused(&self, used: &Used, refusal: &Refusal) -> bool {
        let Ok(start) = self.start().await else { return false };
        // A host that is only the target of a redirect must not decide where hakobi sends the login.
        if refusal.from.as_ref().is_some_and(|from| from.origin() != start.base.origin()) {
            return false;
        }
        let mut auth = self.auth.lock().await;
        let changed = refusal.challenge.is_some() && refusal.challenge != auth.challenge;
        if let Some(challenge) = &refusal.challenge {
            auth.challenge = Some(challenge.clone());
            auth.asked = true;
        }
        auth.tokens.retain(|_, token| !used.carried(&token.token));
        let had = auth.credential.take();
        drop(auth);
        if self.ecr.is_some()
            && let Ok(Some((found, _))) = self.shared.login(&self.name).await
            && used.carried_credential(&found.credential)
        {
            self.shared.ecr.forget(&self.name, &found.credential).await;
            return true;
        }
        changed || used.0.is_some() || had.is_none()
    }

    /// Sends a request. Sends it once more with a new login if the registry refuses the first. Retries after a missing answer or a
    /// temporary refusal, under one deadline. Calls `make` for each attempt.
    pub(super) async fn send(
        &self,
        what: &str,
        repository: &Repository,
        scope: &Scope,
        url: &Url,
        limit: Duration,
        make: impl Fn(&reqwest::Client, Url) -> RequestBuilder,
    ) -> Result<Reply> {
        let client = self.client().await.map_err(|error| error.doing(what).within(repository))?;
        let own = self.is_own(url).await?;
        let mut attempts = Attempts::new(&self.shared.patience, &self.answers);
        let mut logged_in_anew = false;
        loop {
            let request = make(client, url.clone());
            let (request, used) = if own { self.authorize(scope, request).await? } else { (request, Used(None)) };
            let sent = match tokio::time::timeout(limit, send(request, attempts.made())).await {
                Ok(Ok(response)) => Ok(Reply::from_response(response).await),
                Ok(Err(error)) => Err(network(&error, what, &self.name).within(repository)),
                Err(_) => Err(Error::at(Kind::Network, what, repository).because(&format!("no answer in {} s", limit.as_secs()))),
            };
            let (error, asked) = match sent {
                Ok(Reply::Refused(refusal)) if refusal.wants_login() && !logged_in_anew && own => {
                    logged_in_anew = true;
                    if self.refused(&used, &refusal).await {
                        continue;
                    }
                    return Ok(Reply::Refused(refusal));
                }
                Ok(Reply::Refused(refusal)) if refusal.is_transient() => (refusal.error(what, repository), refusal.retry_after),
                Ok(reply) => {
                    self.answers.beat();
                    return Ok(reply);
                }
                Err(error) if error.is_transient() => (error, None),
                Err(error) => return Err(error),
            };
            if !attempts.again(asked).await {
                return Err(attempts.ended(error));
            }
        }
    }
}

impl Used {
    fn carried(&self, token: &str) -> bool {
        self.0
            .as_ref()
            .and_then(|header| header.to_str().ok())
            .is_some_and(|header| header.strip_prefix("Bearer ") == Some(token))
    }

    fn carried_credential(&self, credential: &Credential) -> bool {
        use base64::Engine as _;
        let Credential::Basic { username, password } = credential else { return false };
        let expected = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        self.0
            .as_ref()
            .and_then(|header| header.to_str().ok())
            .is_some_and(|header| header.strip_prefix("Basic ") == Some(&*expected))
    }
}
