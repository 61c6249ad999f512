//! Redirects of the registry's first answer, of its others and of its token service: no login goes along.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hakobi::domain::Digest;
use hakobi::event::Events;
use hakobi::registry::{Kind, Options, Registries};
use hakobi::settings::RegistrySettings;

use super::fixtures::*;
use crate::support::http_fake::{Say, Server, answer, body, serve};

/// What a host got: each request's path, login and body.
type Seen = Arc<Mutex<Vec<(String, Option<String>, String)>>>;

/// A host that wants a login for everything, and notes what it gets.
async fn curious(challenge: &'static str) -> (Server, Seen) {
    let seen: Seen = Arc::default();
    let notes = Arc::clone(&seen);
    let server = serve(move |request| {
        let notes = Arc::clone(&notes);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let login = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let body = String::from_utf8_lossy(&body(request).await).into_owned();
            notes.lock().unwrap().push((path, login, body));
            Say::This(answer(401, &[("www-authenticate", challenge)], ""))
        })
    })
    .await;
    (server, seen)
}

/// A host that redirects everything.
async fn redirecting(status: u16, to: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    serve(move |request| {
        let to = to(request.uri().path());
        Box::pin(async move { Say::This(answer(status, &[("location", &to)], "")) })
    })
    .await
}

fn logged_in(host: &str) -> (tempfile::TempDir, Registries) {
    let config = docker_config(&[(host, "u", "p4ss")]);
    let settings = RegistrySettings { docker_config: Some(config.path().to_owned()), ..RegistrySettings::default() };
    (config, Registries::with(&settings, Events::none(), Options { aws: no_aws(), ..Options::default() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_registry_redirects_to_never_gets_its_login() {
    for status in [301, 302, 307, 308] {
        let (other, seen) = curious("Basic realm=\"x\"").await;
        let address = other.address;
        let registry = redirecting(status, move |path| format!("http://{address}{path}")).await;
        let host = registry.address.to_string();
        let (_config, registries) = logged_in(&host);
        let client = registries.repository(&repository(&host, "app"));
        let error = client.read_blob(&Digest::hash(b"x"), 1 << 20).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized, "{error}");
        assert!(client.push_access(None).await.is_err());
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(_, login, _)| login.is_none()), "{status}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_registry_redirects_to_does_not_say_where_the_login_is_sent() {
    let (thief, stolen) = curious("Basic realm=\"x\"").await;
    let challenge: &'static str = format!("Bearer realm=\"http://{}/token\",service=\"x\"", thief.address).leak();
    let (other, _) = curious(challenge).await;
    let address = other.address;
    let registry = redirecting(307, move |path| format!("http://{address}{path}")).await;
    let host = registry.address.to_string();
    let (_config, registries) = logged_in(&host);
    let client = registries.repository(&repository(&host, "app"));
    assert!(client.read_blob(&Digest::hash(b"x"), 1 << 20).await.is_err());
    assert!(client.push_access(None).await.is_err());
    assert_eq!(stolen.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_lead_nowhere_are_given_up_within_seconds() {
    let registry = redirecting(302, |path| format!("{path}?again")).await;
    let host = registry.address.to_string();
    let (_config, registries) = logged_in(&host);
    let begun = Instant::now();
    let error = registries.repository(&repository(&host, "app")).push_access(None).await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    // The same of a registry that answers its first request.
    let half = serve(|request| {
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            if path == "/v2/" { Say::This(answer(200, &[], "")) } else { Say::This(answer(307, &[("location", &path)], "")) }
        })
    })
    .await;
    let host = half.address.to_string();
    let (_config, registries) = logged_in(&host);
    assert!(registries.repository(&repository(&host, "app")).read_blob(&Digest::hash(b"x"), 1 << 20).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_redirects_gets_a_refresh_token_alone() {
    let (other, seen) = curious("Basic realm=\"x\"").await;
    let address = other.address;
    let tokens = redirecting(307, move |path| format!("http://{address}{path}")).await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"x\"", tokens.address);
    let registry = serve(move |_| {
        let challenge = challenge.clone();
        Box::pin(async move { Say::This(answer(401, &[("www-authenticate", &challenge)], "")) })
    })
    .await;
    let host = registry.address.to_string();
    let config = tempfile::tempdir().unwrap();
    let text = serde_json::json!({ "auths": { &host: { "auth": "PHRva2VuPjo=", "identitytoken": "s3cret" } } }).to_string();
    std::fs::write(config.path().join("config.json"), text).unwrap();
    let settings = RegistrySettings { docker_config: Some(config.path().to_owned()), ..RegistrySettings::default() };
    let registries = Registries::with(&settings, Events::none(), Options { aws: no_aws(), ..Options::default() });
    assert!(registries.repository(&repository(&host, "app")).read_blob(&Digest::hash(b"x"), 1 << 20).await.is_err());
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, login, body)| login.is_none() && !body.contains("s3cret")), "{seen:?}");
}
