//! Snapshots of the errors of a store in a registry. A small server gives the answers that cause them.

use std::time::Duration;

use super::{RegistryOptions, RegistryStore};
use crate::domain::{Digest, ImageRef};
use crate::error::shown;
use crate::event::Events;
use crate::registry::testing::{answer, nobody, refusal, serve};
use crate::registry::{AwsSource, Options, Patience, Registries};
use crate::settings::RegistrySettings;
use crate::store::{Error, Name, ObjectStore as _, Pace};
use crate::transfer::BytesSource;

fn told(error: &Error) -> String {
    format!("{:?} {}", error.fault(), shown(error, error.hint_text()))
}

fn store(address: &str) -> RegistryStore {
    let patience = Patience { total: Duration::ZERO, ..Patience::default() };
    let options = Options { patience, aws: AwsSource::default() };
    let registries = Registries::with(&RegistrySettings::default(), Events::none(), options);
    let reference: ImageRef = format!("{address}/team/cache").parse().expect("a reference");
    let options = RegistryOptions { image: Some("app".to_owned()), scope: "main".to_owned(), ..RegistryOptions::default() };
    RegistryStore::new(registries.repository(&reference.repository), options, Pace::default())
}

#[tokio::test]
async fn reads() {
    let manifest = |version: u32| {
        let blob = Digest::hash(b"");
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{blob}","size":0}}"#);
        let rest = format!(r#""annotations":{{"dev.hakobi.cache":"{version}"}}"#);
        answer("200 OK", "", &format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}],{rest}}}"#))
    };
    let mut out = String::new();
    for response in [
        refusal("401 Unauthorized", "UNAUTHORIZED", "authentication required"),
        refusal("403 Forbidden", "DENIED", "requested access to the resource is denied"),
        refusal("429 Too Many Requests", "TOOMANYREQUESTS", "slow down"),
        refusal("503 Service Unavailable", "", ""),
        refusal("400 Bad Request", "UNSUPPORTED", "no such operation"),
        manifest(2),
    ] {
        let address = serve(move |head| match head.starts_with("GET /v2/ ") {
            true => answer("200 OK", "", ""),
            false => response.clone(),
        })
        .await;
        let error = store(&address).read(&Name::format(), 0..100).await.err().expect("refused");
        out.push_str(&told(&error).replace(&address, "127.0.0.1:PORT"));
    }
    let nobody = nobody().await;
    let error = store(&nobody).read(&Name::format(), 0..100).await.err().expect("unreachable");
    out.push_str(&told(&error).replace(&nobody, "127.0.0.1:PORT"));
    insta::assert_snapshot!("reads", out);
}

#[tokio::test]
async fn writes() {
    let mut out = String::new();
    for response in [
        refusal(
            "400 Bad Request",
            "TAG_INVALID",
            "The image tag already exists and cannot be overwritten because the tag is immutable.",
        ),
        refusal("403 Forbidden", "DENIED", "requested access to the resource is denied"),
        refusal("404 Not Found", "NAME_UNKNOWN", "repository name not known to registry"),
    ] {
        let address = serve(move |head| {
            let (method, rest) = head.split_once(' ').unwrap_or_default();
            match method {
                "GET" if rest.starts_with("/v2/ ") => answer("200 OK", "", ""),
                "POST" | "PATCH" => answer("202 Accepted", "location: /upload\r\n", ""),
                "PUT" if rest.starts_with("/upload") => answer("201 Created", "", ""),
                "PUT" => response.clone(),
                _ => refusal("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
            }
        })
        .await;
        let store = store(&address);
        let record = Name::record("main", &Digest::hash(b"key"));
        store.write(&record, &BytesSource::new("{}".into())).await.expect("kept until the end");
        out.push_str(&told(&store.flush().await.expect_err("refused")).replace(&address, "127.0.0.1:PORT"));
    }
    out.push_str(&told(&super::save::overwritten()));
    insta::assert_snapshot!("writes", out);
}
