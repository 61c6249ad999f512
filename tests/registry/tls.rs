//! Certificates that do not check, and registries that speak the other scheme. `0.0.0.0` leads to this host, but is none of
//! Docker's loopback names, so it stands for a registry elsewhere.

use std::sync::Arc;

use hakobi::domain::{Digest, RegistryHost};
use hakobi::error::Error;
use hakobi::event::Events;
use hakobi::registry::{Kind, Options, Registries, install_crypto};
use hakobi::settings::RegistrySettings;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fixtures::*;
use crate::support::http_fake::{Say, answer, serve};

/// A registry that has nothing, over TLS with a certificate that no one signed. Its port.
async fn self_signed() -> u16 {
    install_crypto();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../support/tls/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../support/tls/key.pem")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let status = if buffer[..read].starts_with(b"GET /v2/ ") { "200 OK" } else { "404 Not Found" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

fn registries_with(insecure: &[&str]) -> Registries {
    let insecure = insecure.iter().map(|host| RegistryHost::new(*host)).collect();
    let settings = RegistrySettings { insecure, ..RegistrySettings::default() };
    Registries::with(&settings, Events::none(), Options { patience: hasty(), aws: no_aws() })
}

async fn asked(registries: &Registries, host: &str) -> Result<bool, hakobi::registry::Error> {
    registries.repository(&repository(host, "app")).has(&Digest::hash(b"x")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_check_needs_to_be_allowed() {
    let host = format!("0.0.0.0:{}", self_signed().await);
    let error = asked(&registries_with(&[]), &host).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "{error}");
    assert!(Error::from(error).hint_text().is_some_and(|hint| hint.contains(&format!("--insecure-registry {host}"))));
    assert!(!asked(&registries_with(&[&host]), &host).await.unwrap());
    assert!(!asked(&registries_with(&[]), &host.replace("0.0.0.0", "127.0.0.1")).await.unwrap(), "loopback is asked by TLS too");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_spoken_on_loopback_and_where_it_is_allowed() {
    let server = serve(|request| {
        Box::pin(async move { Say::This(answer(if request.uri().path() == "/v2/" { 200 } else { 404 }, &[], "")) })
    })
    .await;
    let loopback = server.address.to_string();
    let elsewhere = loopback.replace("127.0.0.1", "0.0.0.0");
    assert!(!asked(&registries_with(&[]), &loopback).await.unwrap());
    assert!(!asked(&registries_with(&[&elsewhere]), &elsewhere).await.unwrap());
    let error = asked(&registries_with(&[]), &elsewhere).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "{error}");
}
