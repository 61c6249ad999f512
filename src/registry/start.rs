//! Finds a registry's scheme and address, once, with the protocol's first request (`GET /v2/`).

use std::time::Duration;

use reqwest::Url;

use super::auth::Challenge;
use super::ecr::EcrHost;
use super::error::{Error, Kind, Result};
use super::http::{Trust, describe, send};
use super::shared::Shared;
use crate::domain::RegistryHost;

/// A registry's address.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) base: Url,
    pub(super) trust: Trust,
    pub(super) challenge: Option<Challenge>,
}

/// Finds a registry.
pub(super) async fn find(shared: &Shared, host: &RegistryHost) -> Result<Start> {
    if EcrHost::parse(host).is_some() {
        let endpoint = shared.login(host).await?.and_then(|(_, endpoint)| endpoint);
        let base = endpoint.as_deref().and_then(parse_endpoint);
        let trust = base.as_ref().map_or(Trust::Verified, |(_, trust)| *trust);
        let base = match base {
            Some((base, _)) => base,
            None => parse("https", host)?,
        };
        return Ok(Start { base, trust, challenge: Some(Challenge::Basic) });
    }
    if host.is_docker_hub() {
        return ping(shared, host, parse("https", &RegistryHost::new("registry-1.docker.io"))?, Trust::Verified).await;
    }
    match shared.trust(host) {
        Trust::Verified => ping(shared, host, parse("https", host)?, Trust::Verified).await,
        // Docker tries TLS first. Loopback registries without TLS are much more common, so hakobi tries TLS last here.
        Trust::Loopback => either(shared, host, Trust::Loopback, ["http", "https"]).await,
        Trust::Insecure => either(shared, host, Trust::Insecure, ["https", "http"]).await,
    }
}

/// Returns the address in ECR's answer, if it differs from the host's name. Every account's registries accept the token, and the
/// answer names the caller's own registry. hakobi therefore ignores an ECR name there.
fn parse_endpoint(endpoint: &str) -> Option<(Url, Trust)> {
    let url: Url = endpoint.parse().ok()?;
    let authority = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let host = RegistryHost::new(authority);
    if EcrHost::parse(&host).is_some() {
        return None;
    }
    match (url.scheme(), host.is_loopback()) {
        (_, true) => Some((url, Trust::Loopback)),
        ("https", false) => Some((url, Trust::Verified)),
        _ => None,
    }
}

fn parse(scheme: &str, host: &RegistryHost) -> Result<Url> {
    let url = format!("{scheme}://{host}/").parse::<Url>();
    url.map_err(|error| Error::on(Kind::Refused, "parse the registry's name", host).because(&error.to_string()))
}

async fn either(shared: &Shared, host: &RegistryHost, trust: Trust, schemes: [&str; 2]) -> Result<Start> {
    let first = match ping(shared, host, parse(schemes[0], host)?, trust).await {
        Ok(start) => return Ok(start),
        Err(error) => error,
    };
    ping(shared, host, parse(schemes[1], host)?, trust).await.map_err(|_| first)
}

async fn ping(shared: &Shared, host: &RegistryHost, base: Url, trust: Trust) -> Result<Start> {
    let what = "reach the registry";
    let url = base.join("/v2/").map_err(|_| Error::on(Kind::Refused, what, host))?;
    let request = shared.http.own_client(trust)?.get(url).timeout(Duration::from_secs(30));
    let response = send(request, 1).await.map_err(|error| network(&error, what, host))?;
    // A TLS server answers plain HTTP with status 400. A registry never does so here.
    if base.scheme() == "http" && response.status().as_u16() == 400 {
        return Err(Error::on(Kind::Network, what, host).because("it does not support plain HTTP"));
    }
    // A redirect may lead to TLS. hakobi does not follow a redirect to another host: that host must not get this registry's login.
    let base = if response.url().origin() == base.origin() { base } else { moved(response.url()).unwrap_or(base) };
    Ok(Start { base, trust, challenge: Challenge::from_headers(response.headers()) })
}

fn moved(url: &Url) -> Option<Url> {
    (url.path() == "/v2/").then(|| url.join("/").ok()).flatten()
}

/// Returns the error of a request without an answer.
pub(super) fn network(error: &reqwest::Error, what: &str, host: &RegistryHost) -> Error {
    let cause = describe(error);
    let tls = [
        "certificate",
        "Certificate",
        "UnknownIssuer",
        "invalid peer",
        "HandshakeFailure",
        "InvalidContentType",
        "corrupt message",
    ];
    let kind = if tls.iter().any(|word| cause.contains(word)) {
        Kind::Tls
    } else if error.is_redirect() {
        // The redirects will not be different a second later.
        Kind::Refused
    } else {
        Kind::Network
    };
    Error::on(kind, what, host).because(&cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_safe_to_talk_to_are_taken_from_aws() {
        let told = |text| parse_endpoint(text).map(|(url, trust)| (url.to_string(), trust));
        assert_eq!(told("http://127.0.0.1:5000"), Some(("http://127.0.0.1:5000/".into(), Trust::Loopback)));
        assert_eq!(told("https://ecr.corp.example"), Some(("https://ecr.corp.example/".into(), Trust::Verified)));
        assert_eq!(told("http://ecr.corp.example"), None);
        assert_eq!(told("https://999999999999.dkr.ecr.eu-west-1.amazonaws.com"), None, "the caller's own account");
    }
}
