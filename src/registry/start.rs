//! Where a registry is: its scheme and address, found out once with the protocol's first request (`GET /v2/`).

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
        // Docker asks for TLS first; a loopback registry without it is so much more common that it is asked last here.
        Trust::Loopback => either(shared, host, Trust::Loopback, ["http", "https"]).await,
        Trust::Insecure => either(shared, host, Trust::Insecure, ["https", "http"]).await,
    }
}

/// The address in ECR's answer, where it says more than the host's name. The token is good for every account's registries,
/// and the answer names the caller's own, so an ECR name there is not the one to talk to.
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
    format!("{scheme}://{host}/").parse().map_err(|_| Error::on(Kind::Refused, "parse the registry's name", host))
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
    // A TLS server answers plain HTTP with a 400 of its own; a registry never answers so here.
    if base.scheme() == "http" && response.status().as_u16() == 400 {
        return Err(Error::on(Kind::Network, what, host).because("it does not support plain HTTP"));
    }
    // A redirect may have led to TLS. One to another host is not followed: whoever answers there is not given this registry's login.
    let base = if response.url().origin() == base.origin() { base } else { moved(response.url()).unwrap_or(base) };
    Ok(Start { base, trust, challenge: Challenge::from_headers(response.headers()) })
}

fn moved(url: &Url) -> Option<Url> {
    (url.path() == "/v2/").then(|| url.join("/").ok()).flatten()
}

/// A request that brought no answer.
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
        // They will not lead elsewhere in a second's time.
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
