//! The HTTP clients that registries are reached by, and texts made safe to print.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, Url};

use super::error::{Error, Kind};

/// Makes ring the process's TLS crypto. Harmless when called again, or where another provider was installed before.
pub fn install_crypto() {
    // An error says only that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those the system's authorities signed.
    Verified,
    /// Any: the host is one of `--insecure-registry`.
    Insecure,
    /// Any, and no proxy on the way: the host is this machine.
    Loopback,
}

/// One client for each kind of trust, made when first needed: a run that only speaks to a loopback registry needs no
/// certificate authorities on its machine.
#[derive(Debug, Default)]
pub(super) struct Http {
    verified: OnceLock<Client>,
    insecure: OnceLock<Client>,
    loopback: OnceLock<Client>,
}

impl Http {
    /// The client for this kind of trust.
    pub(super) fn client(&self, trust: Trust) -> Result<&Client, Error> {
        let slot = match trust {
            Trust::Verified => &self.verified,
            Trust::Insecure => &self.insecure,
            Trust::Loopback => &self.loopback,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client =
            build(trust).map_err(|error| Error::new(Kind::Tls, "setting up TLS", "this machine").because(&describe(&error)))?;
        Ok(slot.get_or_init(|| client))
    }
}

fn build(trust: Trust) -> reqwest::Result<Client> {
    install_crypto();
    let builder = Client::builder()
        .user_agent(concat!("hakobi/", env!("CARGO_PKG_VERSION")))
        // HTTP/1.1: each blob gets a connection of its own. Over HTTP/2 all would share one TCP connection's window.
        .http1_only()
        .connect_timeout(Duration::from_secs(20))
        .pool_idle_timeout(Duration::from_secs(50))
        .tcp_nodelay(true)
        .referer(false);
    match trust {
        Trust::Verified => builder,
        Trust::Insecure => builder.danger_accept_invalid_certs(true),
        Trust::Loopback => builder.danger_accept_invalid_certs(true).no_proxy(),
    }
    .build()
}

/// A URL without its query and user information: an upload's query is a capability, and a signed URL a credential.
pub(super) fn redact(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("redacted"));
    }
    url.to_string()
}

/// What a failed request says, with its causes and without its URL.
pub(super) fn describe(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = match (error.is_connect(), error.is_timeout()) {
        (_, true) => "timed out".to_owned(),
        (true, _) => "cannot connect".to_owned(),
        _ if error.is_redirect() => "too many redirects".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut next = error.source();
    let mut last = String::new();
    while let Some(source) = next {
        // The innermost cause is the one that says something ("Connection refused", "UnknownIssuer").
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
    fn what_is_printed_of_a_url_is_no_credential() {
        let url = "https://user:pass@s3.example/blob?X-Amz-Signature=abc".parse().expect("a URL");
        assert_eq!(redact(&url), "https://s3.example/blob?redacted");
    }

    #[test]
    fn crypto_may_be_installed_twice() {
        install_crypto();
        install_crypto();
        assert!(build(Trust::Loopback).is_ok());
    }
}
