//! Faults on the way: a scripted registry that resumes, and a proxy in front of the real one that misbehaves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hakobi::domain::Digest;
use hakobi::event::Events;
use hakobi::registry::{Kind, Options, Registries};
use hakobi::settings::RegistrySettings;
use hakobi::transfer::{BytesSource, Spool};
use hyper::Request;
use hyper::body::Incoming;

use super::fixtures::*;
use crate::support::http_fake::{Say, Server, answer, forward, refusal, serve, some_body};
use crate::support::parts::{part, unique};

/// A registry in memory that keeps what arrived of a broken upload, as the specification allows.
#[derive(Default)]
struct Memory {
    partial: Mutex<Vec<u8>>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    requests: Mutex<Vec<String>>,
    cut_at: Mutex<Vec<usize>>,
}

impl Memory {
    async fn serve(&self, mut request: Request<Incoming>) -> Say {
        let path = request.uri().to_string();
        self.requests.lock().unwrap().push(format!("{} {}", request.method(), path));
        // The Location is relative and its query must come back as it is.
        let location = ("location", "/v2/app/blobs/uploads/u?state=a%2Fb%3D&n=1");
        let range = |length: usize| format!("0-{}", length.saturating_sub(1));
        match request.method().as_str() {
            "GET" if path == "/v2/" => Say::This(answer(200, &[], "")),
            "POST" => Say::This(answer(202, &[location], "")),
            "PATCH" => {
                let cut = { self.cut_at.lock().unwrap().pop() };
                let part = some_body(request.body_mut(), cut.unwrap_or(usize::MAX)).await;
                let mut partial = self.partial.lock().unwrap();
                partial.extend_from_slice(&part);
                match cut {
                    Some(_) => Say::Cut,
                    None => Say::This(answer(202, &[location, ("range", &range(partial.len()))], "")),
                }
            }
            "GET" if path.contains("state=a%2Fb%3D") => {
                let length = self.partial.lock().unwrap().len();
                Say::This(answer(204, &[location, ("range", &range(length))], ""))
            }
            "PUT" => {
                let digest = path.split("digest=").nth(1).unwrap_or_default().replace("%3A", ":");
                let bytes = std::mem::take(&mut *self.partial.lock().unwrap());
                if !path.contains("state=a%2Fb%3D&n=1&digest=") || Digest::hash(&bytes).to_string() != digest {
                    return Say::This(refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
                }
                self.blobs.lock().unwrap().insert(digest, bytes);
                Say::This(answer(201, &[], ""))
            }
            _ => Say::This(answer(404, &[], "")),
        }
    }
}

async fn memory() -> (Arc<Memory>, Server) {
    let memory = Arc::new(Memory::default());
    let served = Arc::clone(&memory);
    let server = serve(move |request| {
        let memory = Arc::clone(&served);
        Box::pin(async move { memory.serve(request).await })
    })
    .await;
    (memory, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_goes_on_where_it_was() {
    let (memory, server) = memory().await;
    *memory.cut_at.lock().unwrap() = vec![3_000_000, 1_000_000];
    let client = registries().repository(&repository(&server.address.to_string(), "app"));
    let bytes = noise(6 << 20);
    let uploaded = client.upload(&BytesSource::new(bytes.clone()), None, quiet()).await.unwrap();
    assert_eq!(uploaded.identity.size, bytes.len() as u64);
    assert!(memory.blobs.lock().unwrap().values().next().unwrap() == &bytes);
    let requests = memory.requests.lock().unwrap().clone();
    assert_eq!(requests.iter().filter(|request| request.starts_with("POST")).count(), 1, "{requests:?}");
    assert_eq!(requests.iter().filter(|request| request.starts_with("PATCH")).count(), 3, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_of_a_growing_blob_goes_on_too() {
    let (memory, server) = memory().await;
    *memory.cut_at.lock().unwrap() = vec![200_000];
    let client = registries().repository(&repository(&server.address.to_string(), "app"));
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, spool) = Spool::create(directory.path()).unwrap();
    let uploading = tokio::spawn(async move { client.upload(&spool, None, quiet()).await });
    let bytes = noise(1 << 20);
    for part in bytes.chunks(64 << 10) {
        writer.write(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Longer than the stall limit: a slow source is no fault of the registry's.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    writer.finish();
    uploading.await.unwrap().unwrap();
    assert!(memory.blobs.lock().unwrap().values().next().unwrap() == &bytes);
    assert_eq!(memory.requests.lock().unwrap().iter().filter(|request| request.starts_with("PATCH")).count(), 2);
}

pub type Script = Box<dyn Fn(&Request<Incoming>, usize) -> Option<Say> + Send + Sync>;

/// The open test registry, behind a script that is asked first, with the number of the request.
pub async fn proxy(script: Script) -> (Server, Arc<AtomicUsize>) {
    let upstream = part("HAKOBI_TEST_REGISTRY_OPEN");
    let count = Arc::new(AtomicUsize::new(0));
    let own: Arc<Mutex<String>> = Arc::default();
    let (served, counted, script) = (Arc::clone(&own), Arc::clone(&count), Arc::new(script));
    let server = serve(move |request| {
        let (upstream, own, script) = (upstream.clone(), served.lock().unwrap().clone(), Arc::clone(&script));
        let number = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match script(&request, number) {
                Some(say) => say,
                None => forward(request, &upstream, &own, "", None).await,
            }
        })
    })
    .await;
    *own.lock().unwrap() = server.address.to_string();
    (server, count)
}

/// A script that misbehaves the first `times` times that a request fits.
pub fn first(times: usize, fits: fn(&Request<Incoming>) -> bool, say: fn() -> Say) -> Script {
    let left = AtomicUsize::new(times);
    Box::new(move |request, _| {
        let hit = fits(request) && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        hit.then(say)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_ridden_out() {
    let cases: Vec<(&str, Script)> = vec![
        ("503 to everything", first(6, |request| request.uri().path() != "/v2/", || Say::This(answer(503, &[], "<html>")))),
        ("cut POST", first(2, |request| request.method() == "POST", || Say::Cut)),
        ("cut PATCH", first(2, |request| request.method() == "PATCH", || Say::Cut)),
        ("500 to PATCH", first(2, |request| request.method() == "PATCH", || Say::This(answer(500, &[], "")))),
        (
            "upload forgotten",
            first(2, |request| request.method() == "PATCH", || Say::This(refusal(404, "BLOB_UPLOAD_UNKNOWN", "unknown"))),
        ),
        ("cut PUT", first(2, |request| request.method() == "PUT", || Say::Cut)),
        (
            "blob known late",
            first(
                2,
                |request| request.uri().path().contains("/manifests/") && request.method() == "PUT",
                || Say::This(refusal(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown")),
            ),
        ),
    ];
    for (name, script) in cases {
        let (server, _) = proxy(script).await;
        let repository = repository(&server.address.to_string(), &unique("fault"));
        let image = image(2 << 20);
        let registries = registries();
        push(&registries, &image, &repository, &["1"]).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(registries.repository(&repository).manifest("1").await.unwrap(), Some(image.manifest), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let (server, _) =
        proxy(first(1, |request| request.method() == "POST", || Say::This(answer(429, &[("retry-after", "2")], "")))).await;
    let client = registries().repository(&repository(&server.address.to_string(), &unique("fault")));
    let began = Instant::now();
    client.upload(&BytesSource::new(noise(1000)), None, quiet()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_broken_ends_with_the_number_of_attempts() {
    let (server, count) =
        proxy(first(usize::MAX, |request| request.method() == "POST", || Say::This(answer(503, &[], "busy")))).await;
    let patience = hakobi::registry::Patience { total: Duration::from_secs(2), ..hasty() };
    let registries = Registries::with(&RegistrySettings::default(), Events::none(), Options { patience, aws: no_aws() });
    let repository = repository(&server.address.to_string(), &unique("fault"));
    let began = Instant::now();
    let error = registries.repository(&repository).upload(&BytesSource::new(noise(1000)), None, quiet()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(error.kind == Kind::Unavailable && error.is_silence(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&repository.to_string()) && text.contains("attempts in") && text.contains("503"), "{text}");
    assert!(count.load(Ordering::SeqCst) > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stands_still_is_left() {
    let stuck = serve(|request| {
        Box::pin(async move {
            if request.method() == "POST" {
                return Say::This(answer(202, &[("location", "/v2/app/blobs/uploads/u")], ""));
            }
            if request.method() == "PATCH" {
                // Takes no more than what fits into the socket's buffers, for longer than anyone waits.
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            Say::This(answer(if request.uri().path() == "/v2/" { 200 } else { 404 }, &[], ""))
        })
    })
    .await;
    let patience = hakobi::registry::Patience { total: Duration::from_secs(3), ..hasty() };
    let registries = Registries::with(&RegistrySettings::default(), Events::none(), Options { patience, aws: no_aws() });
    let client = registries.repository(&repository(&stuck.address.to_string(), "app"));
    let began = Instant::now();
    let error = client.upload(&BytesSource::new(noise(64 << 20)), None, quiet()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Network);
    assert!(error.to_string().contains("stalled"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Copies bytes between a client and the real registry, and cuts the first connection that carried this many.
async fn cutting_wire(after: usize) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let upstream = part("HAKOBI_TEST_REGISTRY_OPEN");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (upstream, cut) = (upstream.clone(), Arc::clone(&cut));
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let ((mut from, mut to), (mut back, mut out)) = (client.into_split(), server.into_split());
                let up = async {
                    let mut buffer = vec![0; 16 << 10];
                    let mut sent = 0;
                    while let Ok(read @ 1..) = from.read(&mut buffer).await {
                        sent += read;
                        if sent > after && cut.fetch_add(1, Ordering::SeqCst) == 0 {
                            return;
                        }
                        if out.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                let down = tokio::io::copy(&mut back, &mut to);
                tokio::select! { () = up => {}, _ = down => {} }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_registry_gets_a_blob_whose_connection_broke_in_the_middle() {
    let address = cutting_wire(3_000_000).await;
    let client = registries().repository(&repository(&address.to_string(), &unique("wire")));
    let bytes = noise(8 << 20);
    let uploaded = client.upload(&BytesSource::new(bytes.clone()), None, quiet()).await.unwrap();
    assert!(uploaded.sent > bytes.len() as u64, "part of it was sent twice");
    assert_eq!(client.read_blob(&Digest::hash(&bytes), 9 << 20).await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_cancels_the_upload_it_began() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&seen);
    let (server, _) = proxy(Box::new(move |request, _| {
        told.lock().unwrap().push(request.method().to_string());
        None
    }))
    .await;
    let target = repository(&server.address.to_string(), &unique("cancel")).tag("1");
    hakobi::push::preflight(&registries(), &[target], &hakobi::settings::PushSettings::default()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["GET", "POST", "DELETE"]);
}
