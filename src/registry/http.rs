//! The HTTP clients for registries, and texts made safe to print.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};

use super::error::{Error, Kind};
use crate::debug;

/// Makes ring the TLS crypto provider of the process. Has no effect if a provider is already installed.
pub fn install_crypto() {
    // The only possible error: a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificates that hakobi accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Certificates that the system's authorities signed.
    Verified,
    /// Any certificate: the host is one of `--insecure-registry`.
    Insecure,
    /// Any certificate, without a proxy: the host is this machine.
    Loopback,
}

/// One client for each kind of trust, made on first use. A run that only uses a loopback registry therefore needs no certificate
/// authorities on its machine.
#[derive(Debug, Default)]
pub(super) struct Http {
    clients: [OnceLock<Client>; 6],
}

/// The redirects that hakobi follows. A login never follows a redirect to another host or port: reqwest removes it from the
/// request. reqwest does not recognize a login in a body, such as a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirects {
    /// All redirects, except from TLS to plain HTTP of the same host and port, which would keep the login.
    Safe,
    /// Only redirects to the registry itself.
    Own,
}

/// The maximum number of redirects for one request, as in Go.
const MOST_REDIRECTS: usize = 10;

impl Http {
    /// Returns the client for this kind of trust.
    pub(super) fn client(&self, trust: Trust) -> Result<&Client, Error> {
        self.get(trust, Redirects::Safe)
    }

    /// Returns the client for requests that find a registry, or that have a login outside the headers. For this client, a redirect
    /// to another host is an answer, which it does not follow.
    pub(super) fn own_client(&self, trust: Trust) -> Result<&Client, Error> {
        self.get(trust, Redirects::Own)
    }

    fn get(&self, trust: Trust, redirects: Redirects) -> Result<&Client, Error> {
        let place = match trust {
            Trust::Verified => 0,
            Trust::Insecure => 1,
            Trust::Loopback => 2,
        };
        let slot = &self.clients[place + if redirects == Redirects::Own { 3 } else { 0 }];
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client =
            build(trust, redirects).map_err(|error| Error::new(Kind::Tls, "set up TLS", "").because(&describe(&error)))?;
        Ok(slot.get_or_init(|| client))
    }
}

/// Returns whether a redirect stays with a host: the same scheme, host and port, or the same host with TLS.
pub(super) fn stays(from: &Url, to: &Url) -> bool {
    let ports = (from.port_or_known_default(), to.port_or_known_default());
    let upgrade = from.scheme() == "http" && to.scheme() == "https" && (ports.0 == ports.1 || ports == (Some(80), Some(443)));
    from.origin() == to.origin() || (upgrade && from.host_str() == to.host_str())
}

fn policy(redirects: Redirects) -> Policy {
    Policy::custom(move |attempt| {
        let Some(from) = attempt.previous().last() else { return attempt.follow() };
        let to = attempt.url();
        let downgrade = from.scheme() == "https" && to.scheme() != "https";
        let keeps_login = from.host_str() == to.host_str() && from.port_or_known_default() == to.port_or_known_default();
        if attempt.previous().len() > MOST_REDIRECTS {
            attempt.error("there are too many redirects")
        } else if redirects == Redirects::Own && !stays(from, to) {
            attempt.stop()
        } else if downgrade && keeps_login {
            attempt.error("one redirects from HTTPS to plain HTTP")
        } else {
            attempt.follow()
        }
    })
}

fn build(trust: Trust, redirects: Redirects) -> reqwest::Result<Client> {
    install_crypto();
    let builder = Client::builder()
        .user_agent(concat!("hakobi/", env!("CARGO_PKG_VERSION")))
        // HTTP/1.1 gives each blob its own connection. With HTTP/2 all blobs would share one TCP connection's window.
        .http1_only()
        .connect_timeout(Duration::from_secs(20))
        .pool_idle_timeout(Duration::from_secs(50))
        .tcp_nodelay(true)
        .redirect(policy(redirects))
        .referer(false);
    match trust {
        Trust::Verified => builder,
        Trust::Insecure => builder.danger_accept_invalid_certs(true),
        Trust::Loopback => builder.danger_accept_invalid_certs(true).no_proxy(),
    }
    .build()
}

/// Sends a request. `attempt` counts from 1 and is only for `--debug`.
pub(in crate::registry) async fn send(request: RequestBuilder, attempt: u32) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let request = request?;
    let url = request.url();
    let host = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let host = format!("{}{host}", url.host_str().unwrap_or_default());
    let shown = debug::Request::new("registry", request.method().as_str(), &host, url.path(), attempt);
    shown.send(client.execute(request), |response| response.status().as_u16(), describe).await
}

/// Returns the message of a failed request, with its causes and without its URL.
pub(super) fn describe(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = match (error.is_connect(), error.is_timeout()) {
        (_, true) => "timed out".to_owned(),
        (true, _) => "failed to connect".to_owned(),
        _ if error.is_redirect() => "failed to follow the registry's redirects".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut next = error.source();
    let mut last = String::new();
    while let Some(source) = next {
        // The innermost cause is the specific one ("Connection refused", "UnknownIssuer").
        last = source.to_string();
        next = source.source();
    }
    if !last.is_empty() && !last.contains("http://") && !last.contains("https://") {
        text = format!("{text}: {last}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_with_its_host_or_does_not() {
        for (from, to, expected) in [
            ("http://r/v2/", "http://r/v2", true),
            ("http://r/v2/", "https://r/v2/", true),
            ("http://r:5000/v2/", "https://r:5000/v2/", true),
            ("http://r:5000/v2/", "https://r:5001/v2/", false),
            ("http://r:5000/v2/", "http://r:5001/v2/", false),
            ("https://r/v2/", "http://r/v2/", false),
            ("https://r:5000/v2/", "http://r:5000/v2/", false),
            ("https://r/v2/", "https://other/v2/", false),
        ] {
            let url = |text: &str| text.parse::<Url>().expect("a URL");
            assert_eq!(stays(&url(from), &url(to)), expected, "{from} to {to}");
        }
    }

    #[test]
    fn crypto_may_be_installed_twice() {
        install_crypto();
        install_crypto();
        assert!(build(Trust::Loopback, Redirects::Safe).is_ok());
    }
}
