//! A registry that never gets on: one limit for all that is asked of it, and whatever gets through begins it anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hakobi::event::Events;
use hakobi::registry::{Options, Patience, Registries};
use hakobi::settings::{PushSettings, RegistrySettings};
use hakobi::transfer::BytesSource;

use super::fixtures::*;
use crate::support::http_fake::{Say, Server, answer, body, refusal, serve, some_body};

const TOTAL: Duration = Duration::from_secs(3);

/// Registries with this limit.
fn limited() -> Registries {
    let patience = Patience { total: TOTAL, ..hasty() };
    Registries::with(&RegistrySettings::default(), Events::none(), Options { patience, aws: no_aws() })
}

/// Answers what `open` says of method and path, cuts the rest.
async fn half_dead(open: fn(&str, &str) -> bool) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = serve(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
            if !open(&method, &path) {
                return Say::Cut;
            }
            body(request).await;
            Say::This(match &*method {
                "POST" => answer(202, &[("location", "/v2/app/blobs/uploads/u")], ""),
                "HEAD" => answer(404, &[], ""),
                "GET" if path.contains("/uploads/") => answer(204, &[("range", "0-0")], ""),
                _ if path == "/v2/" => answer(200, &[], ""),
                _ => refusal(404, "NAME_UNKNOWN", "unknown"),
            })
        })
    })
    .await;
    (server, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_drops_every_connection_is_given_up_once() {
    let (server, asked) = half_dead(|_, path| path == "/v2/").await;
    let (registries, host) = (limited(), server.address.to_string());
    let repository = repository(&host, "app");
    let began = Instant::now();
    // As a build goes: what the tag stands for, whether it may be pushed, then the push with its many layers.
    registries.repository(&repository).manifest("latest").await.unwrap_err();
    let preflight = hakobi::push::preflight(&registries, &[repository.tag("1")], &PushSettings::default()).await;
    let error = preflight.unwrap_err().to_string();
    for _ in 0..3 {
        push(&registries, &image(100), &repository, &["1", "2"]).await.unwrap_err();
    }
    assert!(began.elapsed() < TOTAL * 2, "{:?}", began.elapsed());
    assert!(error.contains(&host) && error.contains("connection"), "{error}");
    assert!(error.contains("no usable answer"), "{error}");
    assert!(asked.load(Ordering::SeqCst) > 5, "it was tried again before");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_all_cut_are_given_up_together() {
    let (server, _) = half_dead(|method, _| method != "PATCH").await;
    let registries = limited();
    let repository = repository(&server.address.to_string(), "app");
    let pusher = hakobi::push::Pusher::new(registries, vec![repository.clone()], Events::none());
    let began = Instant::now();
    // More than go at once.
    for _ in 0..40 {
        pusher.upload(Arc::new(BytesSource::new(noise(1000))), None);
    }
    let error = pusher.finish_blobs().await.unwrap_err().error.to_string();
    assert!(began.elapsed() < TOTAL * 2, "{:?}", began.elapsed());
    assert!(error.contains(&repository.to_string()), "{error}");
}

/// Registries with this minimum rate, in bytes per second.
fn with_rate(rate: u64) -> Registries {
    let patience = Patience { rate, slow: TOTAL, ..hasty() };
    Registries::with(&RegistrySettings::default(), Events::none(), Options { patience, aws: no_aws() })
}

const TOO_SLOW: &str = "the registry is 3 s behind a rate of ";

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hardly_accepts_bytes_is_given_up() {
    let server = serve(|mut request| {
        Box::pin(async move {
            if request.method() == "PATCH" {
                while !some_body(request.body_mut(), 1).await.is_empty() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Say::This(match request.method().as_str() {
                "POST" => answer(202, &[("location", "/v2/app/blobs/uploads/u")], ""),
                _ => answer(if request.uri().path() == "/v2/" { 200 } else { 404 }, &[], ""),
            })
        })
    })
    .await;
    let client = with_rate(20_000_000).repository(&repository(&server.address.to_string(), "app"));
    let began = Instant::now();
    // More than fits into the buffers of the connection.
    let error = client.upload(&BytesSource::new(noise(64 << 20)), None, quiet()).await.unwrap_err().to_string();
    assert!(error.contains(TOO_SLOW), "{error}");
    assert!(began.elapsed() < TOTAL * 4, "{:?}", began.elapsed());
}

/// A registry may take a minute to put a layer together before it answers. Then no byte moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_answers_late_has_not_stalled() {
    let server = serve(|request| {
        Box::pin(async move {
            let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
            body(request).await;
            if method == "PATCH" {
                tokio::time::sleep(hasty().stall * 3).await;
            }
            Say::This(match &*method {
                "POST" => answer(202, &[("location", "/v2/app/blobs/uploads/u")], ""),
                "PATCH" => answer(202, &[("location", "/v2/app/blobs/uploads/u")], ""),
                "PUT" => answer(201, &[], ""),
                _ => answer(if path == "/v2/" { 200 } else { 404 }, &[], ""),
            })
        })
    })
    .await;
    let client = with_rate(1).repository(&repository(&server.address.to_string(), "app"));
    let uploaded = client.upload(&BytesSource::new(noise(1 << 20)), None, quiet()).await.unwrap();
    assert_eq!(uploaded.sent, 1 << 20, "it goes up once");
}

/// Serves one blob with this many bytes a second.
async fn sending(blob: bytes::Bytes, rate: usize) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let blob = blob.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let is_blob = String::from_utf8_lossy(&head[..read]).contains("/blobs/");
                let body = if is_blob { &blob[..] } else { b"" };
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await.unwrap();
                for part in body.chunks(rate / 20) {
                    // The client may have given up.
                    if stream.write_all(part).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hardly_sends_bytes_is_given_up() {
    let blob = noise(2 << 20);
    let digest = hakobi::domain::Digest::hash(&blob);
    for (rate, is_enough) in [(20_000, false), (400_000, true)] {
        let client = with_rate(200_000).repository(&repository(&sending(blob.clone(), rate).await.to_string(), "app"));
        let began = Instant::now();
        let mut stream = client.open_blob(&digest, Some(blob.len() as u64), 0).await.unwrap();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        assert_eq!(read.is_ok(), is_enough, "{rate}: {read:?}");
        if let Err(error) = read {
            assert!(error.to_string().contains(TOO_SLOW), "{error}");
            assert!(began.elapsed() < TOTAL * 4, "{:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_gets_through_begins_the_limit_anew() {
    let (server, _) = half_dead(|_, path| !path.ends_with("/broken")).await;
    let registries = limited();
    let client = registries.repository(&repository(&server.address.to_string(), "app"));
    for _ in 0..2 {
        // One manifest is never had; that others are looked for and not found shows that the registry is there.
        assert_eq!(client.manifest("absent").await.unwrap(), None);
        let began = Instant::now();
        client.manifest("broken").await.unwrap_err();
        assert!(began.elapsed() > TOTAL / 2, "{:?}", began.elapsed());
    }
}
