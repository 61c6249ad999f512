//! The token service (distribution, "Token Authentication Specification" and its OAuth2 variant).

use std::fmt;
use std::time::{Duration, Instant};

use reqwest::{Client, Response, Url};
use serde::Deserialize;

use super::super::credentials::Credential;
use super::super::http::{describe, send};

/// A bearer token. hakobi never prints it.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub token: String,
    /// The lifetime, from the time of issue.
    pub expires_in: Duration,
    /// The time when hakobi fetched it.
    pub(in crate::registry) fetched: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(…, {} s)", self.expires_in.as_secs())
    }
}

impl Token {
    /// Returns whether the token remains valid for a while.
    pub(in crate::registry) fn is_fresh(&self) -> bool {
        // Requests that wait in a queue get the last tenth of the lifetime.
        self.fetched.elapsed() < self.expires_in.mul_f64(0.9)
    }
}

/// The inputs of a token request.
pub(in crate::registry) struct Ask<'a> {
    pub(in crate::registry) realm: Url,
    pub(in crate::registry) service: &'a str,
    pub(in crate::registry) scopes: &'a [String],
    pub(in crate::registry) credential: Option<&'a Credential>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// The reason why there is no token.
#[derive(Debug)]
pub(in crate::registry) enum NoToken {
    /// The service refused with this status, or redirects in a loop (0).
    Refused(u16, String),
    /// The service did not answer, or its answer contains no token.
    Broken(String),
}

/// The client ID that hakobi sends to token services.
const CLIENT_ID: &str = "hakobi";

/// The lifetime of a token if the service states none (distribution: "for compatibility, 60 seconds").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LARGEST_ANSWER: usize = 1 << 20;

/// Fetches a token.
pub(in crate::registry) async fn fetch(client: &Client, ask: &Ask<'_>, attempt: u32) -> Result<Token, NoToken> {
    if let Some(Credential::RegistryToken(token)) = ask.credential {
        return Ok(Token { token: token.clone(), expires_in: DEFAULT_LIFE, fetched: Instant::now() });
    }
    let fetched = Instant::now();
    let request = match ask.credential {
        Some(Credential::IdentityToken(refresh)) => refresh_request(client, ask, refresh),
        _ => plain_request(client, ask),
    };
    let response = send(request, attempt).await.map_err(|error| match error.is_redirect() {
        true => NoToken::Refused(0, describe(&error)),
        false => NoToken::Broken(describe(&error)),
    })?;
    let answer = read(response).await?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(NoToken::Broken("the token service's answer has no token".to_owned()));
    }
    let expires_in = answer.expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds.max(1)));
    Ok(Token { token, expires_in, fetched })
}

fn plain_request(client: &Client, ask: &Ask<'_>) -> reqwest::RequestBuilder {
    let mut url = ask.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if !ask.service.is_empty() {
            query.append_pair("service", ask.service);
        }
        for scope in ask.scopes {
            query.append_pair("scope", scope);
        }
        query.append_pair("client_id", CLIENT_ID);
        if let Some(Credential::Basic { username, .. }) = ask.credential {
            query.append_pair("account", username);
        }
    }
    let request = client.get(url).timeout(Duration::from_secs(60));
    match ask.credential {
        Some(Credential::Basic { username, password }) => request.basic_auth(username, Some(password)),
        _ => request,
    }
}

fn refresh_request(client: &Client, ask: &Ask<'_>, refresh: &str) -> reqwest::RequestBuilder {
    let mut form = ask.realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", ask.service)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &ask.scopes.join(" "))
        .append_pair("refresh_token", refresh);
    let body = form.query().unwrap_or_default().to_owned();
    client
        .post(ask.realm.clone())
        .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .timeout(Duration::from_secs(60))
        .body(body)
}

async fn read(mut response: Response) -> Result<Answer, NoToken> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| NoToken::Broken(describe(&error)))? {
        body.extend_from_slice(&part);
        if body.len() > LARGEST_ANSWER {
            return Err(NoToken::Broken("the token service's answer is too long".to_owned()));
        }
    }
    if !status.is_success() {
        // The service's message may repeat the credentials. Only the status is safe to print.
        return Err(NoToken::Refused(status.as_u16(), format!("the token service answered {status}")));
    }
    serde_json::from_slice(&body).map_err(|_| NoToken::Broken("the token service's answer is not JSON with a token".to_owned()))
}
