//! Tests that every store behaves the same: one suite for memory, a directory and S3, and tests for the special features of each.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "stores/conformance.rs"]
mod conformance;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use hakobi::aws::AwsSource;
use hakobi::domain::Digest;
use hakobi::settings::S3Settings;
use hakobi::store::{Blobs, DirectoryStore, Fault, MemoryStore, Name, ObjectStore, Pace, Paced, Patience, S3Store, read_small};
use hakobi::transfer::{BlobSource as _, BytesSource};
use http::Method;
use support::http_fake::{Say, answer, serve};
use support::s3::{ACCESS_KEY, BUCKET, Fault as S3Fault, S3Server, SECRET_KEY};
use tokio::io::AsyncReadExt as _;

fn settings(bucket: &str, prefix: &str) -> S3Settings {
    S3Settings {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: Some("eu-west-1".to_owned()),
        ..S3Settings::default()
    }
}

fn source(server: &S3Server, secret_key: &str) -> AwsSource {
    AwsSource::Fixed { endpoint: server.endpoint(), access_key: ACCESS_KEY.to_owned(), secret_key: secret_key.to_owned() }
}

/// Bytes that no two parts of have in common.
fn varied(size: usize) -> Vec<u8> {
    (0..size as u64 / 8).flat_map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

/// Of many runs that replace the same bytes at once, one succeeds.
async fn replaces_once(store: &dyn ObjectStore) {
    let name = Name::reference("main", "raced");
    let mut before = None;
    for round in 0..5 {
        let attempts = (0..8).map(|run| {
            let after = bytes::Bytes::from(format!("{round} {run}"));
            let (before, name) = (before.clone(), &name);
            async move { store.replace(name, before.as_ref(), after.clone()).await.expect("an answer").then_some(after) }
        });
        let done: Vec<_> = futures::future::join_all(attempts).await.into_iter().flatten().collect();
        assert_eq!(done.len(), 1, "{done:?}");
        assert_eq!(read_small(store, &name, 100).await.expect("an answer").as_ref(), Some(&done[0]));
        before = done.into_iter().next();
    }
}

#[tokio::test]
async fn memory() {
    conformance::holds(&MemoryStore::default()).await;
    replaces_once(&MemoryStore::default()).await;
}

#[tokio::test]
async fn a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::new(directory.path().join("made/with/the/first"));
    conformance::holds(&store).await;
    replaces_once(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_with_and_without_a_prefix() {
    let server = S3Server::start();
    conformance::holds(&S3Store::open(settings(BUCKET, "team/app"), &source(&server, SECRET_KEY)).await).await;
    let server = S3Server::start();
    let store = S3Store::open(settings(BUCKET, ""), &source(&server, SECRET_KEY)).await;
    conformance::holds(&store).await;
    replaces_once(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_one_answer_lists_and_one_request_deletes() {
    let server = S3Server::start();
    let store = S3Store::open(settings(BUCKET, "p"), &source(&server, SECRET_KEY)).await;
    let names: Vec<Name> = (0..1100).map(|number| Name::reference("many", &number.to_string())).collect();
    let written = names.iter().map(|name| async { store.write(name, &BytesSource::new("x".into())).await.unwrap() });
    futures::stream::iter(written).buffer_unordered(16).collect::<Vec<()>>().await;
    assert_eq!(store.list("").await.unwrap().len(), 1100);
    store.delete_all(&names[..1050]).await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 50);
}

/// Uploads that began before a time are aborted, those since then are not.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_were_broken_off_are_aborted() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let uploads = move |request: hyper::Request<hyper::body::Incoming>| -> BoxFuture<'static, Say> {
        let line = format!("{} {}", request.method(), request.uri().path_and_query().unwrap());
        let first = request.uri().query().is_some_and(|query| query.contains("uploads") && !query.contains("key-marker"));
        let upload = |key: &str, at: &str| {
            format!("<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId><Initiated>{at}</Initiated></Upload>")
        };
        let body = match (request.method() == Method::GET, first) {
            (true, true) => format!(
                "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/blobs/a</NextKeyMarker>\
                 <NextUploadIdMarker>id-p/blobs/a</NextUploadIdMarker>{}</ListMultipartUploadsResult>",
                upload("p/blobs/a", "2001-01-01T00:00:00.000Z")
            ),
            (true, false) => format!(
                "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{}{}</ListMultipartUploadsResult>",
                upload("p/blobs/b", "2001-01-01T00:00:00.000Z"),
                upload("p/blobs/new", "2999-01-01T00:00:00.000Z")
            ),
            _ => String::new(),
        };
        log.lock().unwrap().push(line);
        Box::pin(async move { Say::This(answer(if body.is_empty() { 204 } else { 200 }, &[], body)) })
    };
    let server = serve(uploads).await;
    let endpoint = format!("http://{}", server.address);
    let source = AwsSource::Fixed { endpoint, access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into() };
    let store = S3Store::open(settings(BUCKET, "p"), &source).await;
    assert_eq!(store.delete_leftovers(2_000_000_000).await.unwrap(), 2);
    let asked = asked.lock().unwrap().clone();
    let deleted: Vec<&String> = asked.iter().filter(|line| line.starts_with("DELETE")).collect();
    assert!(deleted.len() == 2 && deleted[0].contains("/p/blobs/a?") && deleted[1].contains("/p/blobs/b?"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_in_parts_and_comes_in_ranges() {
    let server = S3Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(S3Store::open(settings(BUCKET, "p"), &source(&server, SECRET_KEY)).await);
    let blobs = Blobs::new(store);
    let bytes = varied(37 << 20);
    let blob = BytesSource::new(bytes.clone().into());
    assert!(blobs.keep(&blob).await.unwrap());
    assert!(!blobs.keep(&blob).await.unwrap());
    let digest = Digest::hash(&bytes);
    for offset in [0, 1, 5 << 20, (37 << 20) - 1] {
        let mut out = Vec::new();
        blobs.open(&digest, None, offset).await.unwrap().unwrap().read_to_end(&mut out).await.unwrap();
        assert!(out == bytes[usize::try_from(offset).unwrap()..], "from {offset}");
    }
    assert!(server.connections() > 3, "ranges come side by side");
    // Several streams share what may be read ahead, and none waits for another that nobody reads.
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(blobs.open(&digest, Some(37 << 20), 0).await.unwrap().unwrap());
    }
    for mut stream in streams.into_iter().rev() {
        let mut out = Vec::new();
        stream.read_to_end(&mut out).await.unwrap();
        assert!(out == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_s3_name_their_cause() {
    let server = S3Server::start();
    let name = Name::format();
    let wrong = S3Store::open(settings(BUCKET, ""), &source(&server, "another")).await;
    let error = wrong.size(&name).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Denied, "{error}");
    let error = wrong.write(&name, &BytesSource::new("{}".into())).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("check the AWS credentials")), "{error} {:?}", error.hint_text());
    let missing = S3Store::open(settings("nothing-here", ""), &source(&server, SECRET_KEY)).await;
    let error = missing.list("").await.unwrap_err();
    assert_eq!(error.fault(), Fault::Missing, "{error}");
    assert!(error.to_string().contains("nothing-here"), "{error}");
    let nobody = AwsSource::Fixed { endpoint: "http://127.0.0.1:9".into(), access_key: "x".into(), secret_key: "x".into() };
    let nobody = S3Store::open(settings(BUCKET, ""), &nobody).await;
    let error = nobody.size(&name).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unreachable, "{error}");
}

/// A store that a run is patient with for a few seconds.
async fn paced(server: &S3Server) -> Arc<dyn ObjectStore> {
    let pace = Pace::new(Patience { total: Duration::from_secs(3), ..Patience::default() });
    let store = S3Store::open_paced(settings(BUCKET, ""), &source(server, SECRET_KEY), pace.clone()).await;
    Arc::new(Paced::new(store, pace))
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_stalls_or_drips_is_given_up() {
    let layer = BytesSource::new(varied(9 << 20).into());
    let digest = layer.known().unwrap().digest;
    for method in [Method::PUT, Method::POST, Method::HEAD] {
        let server = S3Server::start();
        let blobs = Blobs::new(paced(&server).await);
        server.break_after(method.clone(), 0, S3Fault::Stall);
        let began = Instant::now();
        let many = (0..5).map(|_| blobs.keep(&layer));
        for kept in futures::future::join_all(many).await {
            assert_eq!(kept.unwrap_err().fault(), Fault::Unreachable, "{method}");
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{method}: {:?}", began.elapsed());
        assert!(blobs.size(&digest).await.unwrap_err().to_string().contains("no longer used"));
    }
    // 2,000 bytes in a second on each of three connections.
    let server = S3Server::limited(Some(2000));
    let blobs = Blobs::new(paced(&server).await);
    blobs.keep(&layer).await.unwrap();
    let began = Instant::now();
    let read = async || {
        let mut bytes = Vec::new();
        blobs
            .open(&digest, None, 0)
            .await?
            .unwrap()
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| hakobi::store::Error::new(Fault::Other, error.to_string()))
    };
    let (one, two, three) = tokio::join!(read(), read(), read());
    for read in [one, two, three] {
        let error = read.unwrap_err().to_string();
        assert!(error.contains("no longer used"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_is_slow_is_waited_for() {
    // Each part takes longer than a run is patient, and moves all the time.
    let server = S3Server::limited(Some(200_000));
    let blobs = Blobs::new(paced(&server).await);
    let layer = BytesSource::new(varied(1 << 20).into());
    blobs.keep(&layer).await.unwrap();
    let mut bytes = Vec::new();
    blobs.open(&layer.known().unwrap().digest, None, 0).await.unwrap().unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len(), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_cost_seconds() {
    let nonsense = |_: hyper::Request<hyper::body::Incoming>| -> BoxFuture<'static, Say> {
        Box::pin(async { Say::This(answer(200, &[("content-length", "4")], "<a/>")) })
    };
    let around = |_: hyper::Request<hyper::body::Incoming>| -> BoxFuture<'static, Say> {
        Box::pin(async { Say::This(answer(307, &[("location", "/elsewhere")], "")) })
    };
    for server in [serve(nonsense).await, serve(around).await] {
        let endpoint = format!("http://{}", server.address);
        let source = AwsSource::Fixed { endpoint, access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into() };
        let pace = Pace::default();
        let store = S3Store::open_paced(settings(BUCKET, ""), &source, pace.clone()).await;
        let blobs = Blobs::new(Arc::new(Paced::new(store, pace)));
        let began = Instant::now();
        for number in 0_u8..20 {
            assert!(blobs.read(&Digest::hash(&[number]), 1 << 20).await.is_err());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_directory_that_is_a_file_is_a_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = DirectoryStore::new(file.path().to_owned());
    let written = store.write(&Name::format(), &BytesSource::new("{}".into())).await;
    assert!(written.unwrap_err().to_string().contains("failed to write"));
}

#[tokio::test]
async fn a_source_that_breaks_off_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::new(directory.path().to_owned());
    let name = Name::reference("main", "app");
    let error = store.write(&name, &conformance::Broken).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Source);
    assert_eq!(store.list("").await.unwrap(), []);
    let left = std::fs::read_dir(directory.path().join("refs/main")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_answer_is_lost_is_there() {
    let server = S3Server::start();
    let store = S3Store::open(settings(BUCKET, "p"), &source(&server, SECRET_KEY)).await;
    let bytes = varied(20 << 20);
    let name = Name::blob(&Digest::hash(&bytes));
    // The first begins the upload, the second completes it; whoever asks again hears that there is no such upload.
    server.break_after(http::Method::POST, 1, S3Fault::Lost);
    store.write(&name, &BytesSource::new(bytes.clone().into())).await.unwrap();
    server.mend();
    assert_eq!(store.size(&name).await.unwrap(), Some(bytes.len() as u64));
    // One that was not completed is no success.
    let more = varied(30 << 20);
    let name = Name::blob(&Digest::hash(&more));
    server.break_after(http::Method::POST, 1, S3Fault::Reset);
    store.write(&name, &BytesSource::new(more.into())).await.unwrap_err();
    server.mend();
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_dropped_is_aborted() {
    let server = S3Server::limited(None);
    let store = S3Store::open(settings(BUCKET, "p"), &source(&server, SECRET_KEY)).await;
    let bytes = varied(40 << 20);
    let name = Name::blob(&Digest::hash(&bytes));
    server.break_after(http::Method::PUT, 1, S3Fault::Stall);
    let write = tokio::spawn(async move { store.write(&name, &BytesSource::new(bytes.into())).await });
    while server.open_uploads() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    write.abort();
    hakobi::shutdown::finished(std::time::Duration::from_secs(4)).await;
    assert_eq!(server.open_uploads(), 0);
}
