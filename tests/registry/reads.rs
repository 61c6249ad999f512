//! Reading blobs and manifests that are cut, damaged, redirected or mirrored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hakobi::domain::{Descriptor, Digest, RegistryHost, media_type};
use hakobi::event::{Event, Events};
use hakobi::registry::{Kind, Options, Registries};
use hakobi::settings::RegistrySettings;

use super::faults::{first, proxy};
use super::fixtures::*;
use crate::support::http_fake::{Say, Server, answer, body, refusal, serve};
use crate::support::parts::{part, unique};

/// Serves one blob, misbehaving by the number of the request.
async fn blob_server(bytes: Bytes, fault: fn(usize, &Bytes, usize) -> Option<Vec<u8>>) -> Server {
    let count = Arc::new(AtomicUsize::new(0));
    serve(move |request| {
        let (bytes, count) = (bytes.clone(), Arc::clone(&count));
        Box::pin(async move {
            if request.uri().path() == "/v2/" {
                return Say::This(answer(200, &[], ""));
            }
            let number = count.fetch_add(1, Ordering::SeqCst);
            let range = request.headers().get("range").and_then(|value| value.to_str().ok());
            let from: usize = range.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
            let total = bytes.len();
            let rest = fault(number, &bytes, from).unwrap_or_else(|| bytes[from..].to_vec());
            let status = if from > 0 { 206 } else { 200 };
            let range = format!("bytes {from}-{}/{total}", total - 1);
            Say::This(answer(status, &[("content-range", &range)], rest))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_ends_early_is_resumed_and_wrong_bytes_are_asked_for_once_more() {
    let bytes = noise(500_000);
    let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::hash(&bytes), bytes.len() as u64);
    let short = blob_server(bytes.clone(), |number, bytes, from| {
        (number < 3).then(|| bytes[from..bytes.len().min(from + 100_000)].to_vec())
    })
    .await;
    let client = registries().repository(&repository(&short.address.to_string(), "app"));
    let mut read = Vec::new();
    let mut stream = client.open_blob(&descriptor.digest, Some(descriptor.size), 0).await.unwrap();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut read).await.unwrap();
    assert!(read == bytes);
    for (wrong, fine) in [(1, true), (2, false)] {
        let flipped = if wrong == 1 {
            blob_server(bytes.clone(), |number, bytes, _| (number < 1).then(|| bytes.iter().map(|byte| byte ^ 1).collect())).await
        } else {
            blob_server(bytes.clone(), |_, bytes, _| Some(bytes.iter().map(|byte| byte ^ 1).collect())).await
        };
        let client = registries().repository(&repository(&flipped.address.to_string(), "app"));
        let result = client.read_blob(&descriptor.digest, 1 << 20).await;
        assert_eq!(result.is_ok(), fine);
        if let Err(error) = result {
            assert_eq!(error.kind, Kind::Damaged);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_blob_gets_no_login_and_its_signed_address_is_not_printed() {
    let bytes = noise(1000);
    let digest = Digest::hash(&bytes);
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let storage = {
        let (seen, bytes) = (Arc::clone(&seen), bytes.clone());
        serve(move |request| {
            seen.lock().unwrap().push(request.headers().contains_key("authorization"));
            let bytes = bytes.clone();
            Box::pin(async move {
                match request.uri().path() {
                    "/good" => Say::This(answer(200, &[], bytes)),
                    _ => Say::Cut,
                }
            })
        })
        .await
    };
    let target: Arc<Mutex<&str>> = Arc::new(Mutex::new("good"));
    let registry = {
        let (storage, target) = (storage.address, Arc::clone(&target));
        serve(move |request| {
            let target = *target.lock().unwrap();
            Box::pin(async move {
                let logged_in = request.headers().contains_key("authorization");
                if !logged_in {
                    return Say::This(answer(401, &[("www-authenticate", "Basic realm=\"x\"")], ""));
                }
                Say::This(answer(307, &[("location", &format!("http://{storage}/{target}?X-Amz-Signature=s3cret"))], ""))
            })
        })
        .await
    };
    let host = registry.address.to_string();
    let config = docker_config(&[(&host, "u", "p4ss")]);
    let settings = RegistrySettings { docker_config: Some(config.path().to_owned()), ..RegistrySettings::default() };
    let patience = hakobi::registry::Patience { total: Duration::from_millis(300), ..hasty() };
    let registries = Registries::with(&settings, Events::none(), Options { patience, aws: no_aws() });
    let client = registries.repository(&repository(&host, "app"));
    assert_eq!(client.read_blob(&digest, 1 << 20).await.unwrap(), bytes);
    *target.lock().unwrap() = "bad";
    let error = client.read_blob(&digest, 1 << 20).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("s3cret") && !told.contains("p4ss"), "{told}");
    assert!(seen.lock().unwrap().iter().all(|login| !login));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_its_faults_cost_only_a_warning() {
    let open = part("HAKOBI_TEST_REGISTRY_OPEN");
    let path = unique("mirrored");
    let image = image(1000);
    push(&registries(), &image, &repository(&open, &format!("hub/{path}")), &["1"]).await.unwrap();
    let (dead, _) = proxy(first(usize::MAX, |_| true, || Say::This(refusal(404, "NAME_UNKNOWN", "no")))).await;
    let host = dead.address.to_string();
    let mut settings = RegistrySettings::default();
    settings.mirrors.insert(RegistryHost::new(&*host), format!("http://{open}/hub"));
    let (events, mut told) = Events::channel();
    let patience = hakobi::registry::Patience { total: Duration::from_millis(300), ..hasty() };
    let with = |settings: &RegistrySettings| {
        Registries::with(settings, events.clone(), Options { patience: patience.clone(), aws: no_aws() })
    };
    let client = with(&settings).repository(&repository(&host, &path));
    assert_eq!(client.manifest("1").await.unwrap(), Some(image.manifest.clone()));
    let (layer, bytes) = &image.blobs[0];
    assert_eq!(client.read_blob(&layer.digest, 1 << 20).await.unwrap(), bytes);
    settings.mirrors.insert(RegistryHost::new(&*host), "http://127.0.0.1:1".into());
    let client = with(&settings).repository(&repository(&host, &path));
    assert_eq!(client.manifest("1").await.unwrap(), None);
    assert!(matches!(told.try_recv(), Ok(Event::Warning(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_its_digest_is_refused() {
    let server = serve(|request| {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let _ = body(request).await;
            Say::This(match path.as_str() {
                "/v2/" => answer(200, &[], ""),
                _ => answer(200, &[("content-type", media_type::OCI_MANIFEST)], r#"{"schemaVersion":2}"#),
            })
        })
    })
    .await;
    let client = registries().repository(&repository(&server.address.to_string(), "app"));
    let error = client.manifest(&Digest::hash(b"another").to_string()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Damaged);
    assert!(client.manifest("tag").await.unwrap().is_some());
}
