//! Bearer tokens: a registry with a token service of its own, and what BuildKit asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hakobi::domain::Digest;
use hakobi::event::Events;
use hakobi::registry::{Credential, Kind, Options, Registries};
use hakobi::settings::RegistrySettings;

use super::fixtures::*;
use crate::support::http_fake::{Say, Server, answer, body, serve};

#[derive(Default)]
struct Service {
    asked: Mutex<Vec<String>>,
    given: AtomicUsize,
    /// Only this token is good.
    good: AtomicUsize,
    own: Mutex<String>,
}

/// Tokens are `t1`, `t2`, …; a registry that knows only the newest.
async fn service(lifetime: u64) -> (Arc<Service>, Server) {
    let service = Arc::new(Service::default());
    let served = Arc::clone(&service);
    let server = serve(move |request| {
        let service = Arc::clone(&served);
        Box::pin(async move {
            let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
            let uri = request.uri().clone();
            if uri.path() == "/token" {
                let said = String::from_utf8_lossy(&body(request).await).into_owned();
                service.asked.lock().unwrap().push(format!("{header} {} {said}", uri.query().unwrap_or_default()));
                let number = service.given.fetch_add(1, Ordering::SeqCst) + 1;
                service.good.store(number, Ordering::SeqCst);
                let answered = serde_json::json!({ "token": format!("t{number}"), "expires_in": lifetime, "issued_at": "2024-01-01T00:00:00Z" });
                return Say::This(answer(200, &[], answered.to_string()));
            }
            if header != format!("Bearer t{}", service.good.load(Ordering::SeqCst)) {
                let own = service.own.lock().unwrap().clone();
                let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"reg\"");
                return Say::This(answer(401, &[("www-authenticate", &challenge)], ""));
            }
            Say::This(answer(if uri.path() == "/v2/" { 200 } else { 404 }, &[], ""))
        })
    })
    .await;
    *service.own.lock().unwrap() = server.address.to_string();
    (service, server)
}

fn with_config(text: &str) -> (Registries, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), text).unwrap();
    let settings = RegistrySettings { docker_config: Some(directory.path().to_owned()), ..RegistrySettings::default() };
    (Registries::with(&settings, Events::none(), Options { patience: hasty(), aws: no_aws() }), directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_for_its_scope_kept_and_replaced_when_refused() {
    let (service, server) = service(300).await;
    let host = server.address.to_string();
    let (registries, _config) = with_config(&format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#));
    let client = registries.repository(&repository(&host, "team/app"));
    assert!(!client.has(&Digest::hash(b"x")).await.unwrap());
    assert!(!client.has(&Digest::hash(b"y")).await.unwrap());
    let asked = service.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].starts_with("Basic dTpw service=reg&scope=repository%3Ateam%2Fapp%3Apull&client_id=hakobi&account=u"),
        "{asked:?}"
    );
    service.good.store(99, Ordering::SeqCst);
    assert!(!client.has(&Digest::hash(b"x")).await.unwrap());
    assert_eq!(service.asked.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_token_is_not_used_beyond_its_life() {
    let (service, server) = service(1).await;
    let client = registries().repository(&repository(&server.address.to_string(), "app"));
    assert!(!client.has(&Digest::hash(b"x")).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(!client.has(&Digest::hash(b"x")).await.unwrap());
    let asked = service.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].starts_with("- "), "anonymous: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_and_buildkit_gets_what_it_asks_for() {
    let (service, server) = service(300).await;
    let host = server.address.to_string();
    let (registries, _config) = with_config(&format!(
        r#"{{"auths":{{"{host}":{{"identitytoken":"refresh/1"}},"https://index.docker.io/v1/":{{"auth":"aHViOnB3"}}}}}}"#
    ));
    let client = registries.repository(&repository(&host, "a"));
    assert!(!client.has(&Digest::hash(b"x")).await.unwrap());
    let asked = service.asked.lock().unwrap().pop().unwrap();
    assert!(asked.contains("grant_type=refresh_token") && asked.contains("refresh_token=refresh%2F1"), "{asked}");
    assert!(asked.contains("client_id=hakobi") && asked.contains("scope=repository%3Aa%3Apull"), "{asked}");
    let hub = Credential::Basic { username: "hub".into(), password: "pw".into() };
    for name in ["docker.io", "registry-1.docker.io", "index.docker.io", "https://index.docker.io/v1/", "auth.docker.io"] {
        assert_eq!(registries.docker_auth(name).await.unwrap().map(|found| found.credential), Some(hub.clone()), "{name}");
    }
    assert_eq!(
        registries.docker_auth(&host).await.unwrap().map(|found| found.credential),
        Some(Credential::IdentityToken("refresh/1".into()))
    );
    assert_eq!(registries.docker_auth("ghcr.io").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_is_not_well_refuses_no_login() {
    let own: Arc<Mutex<String>> = Arc::default();
    let served = Arc::clone(&own);
    let server = serve(move |request| {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", served.lock().unwrap());
        Box::pin(async move {
            Say::This(match request.uri().path() {
                "/token" => answer(503, &[], ""),
                _ => answer(401, &[("www-authenticate", &challenge)], ""),
            })
        })
    })
    .await;
    *own.lock().unwrap() = server.address.to_string();
    let client = registries().repository(&repository(&server.address.to_string(), "app"));
    let error = client.head_manifest("1").await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.is_silence(), "{error}");
}
