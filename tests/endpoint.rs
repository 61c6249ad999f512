//! Tests the loopback registry alone: the requirements of the distribution protocol, and clients other than daemons.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use hakobi::domain::{Descriptor, Digest, ImageRef, RawManifest, media_type};
use hakobi::local_registry::{Address, CacheRepository, Endpoint, Receiver};
use hakobi::registry::Home as _;
use hakobi::store::{Blobs, DirectoryStore, Name};
use hakobi::transfer::{BytesSource, Identity, Spool};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::engine::{crane, skopeo};
use support::machine::Run;
use support::parts::part;
use tokio::io::AsyncReadExt as _;

/// What was pushed.
#[derive(Default)]
struct Pushed {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    manifests: Mutex<Vec<(String, String, RawManifest)>>,
}

#[async_trait]
impl Receiver for Pushed {
    async fn has(&self, digest: &Digest) -> Option<u64> {
        self.blobs.lock().unwrap().get(digest).map(|bytes| bytes.len() as u64)
    }

    async fn arriving(&self, _: Spool) {}

    async fn arrived(&self, identity: Identity, blob: Spool) {
        use hakobi::transfer::BlobSource as _;
        let mut bytes = Vec::new();
        blob.open(0).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        self.blobs.lock().unwrap().insert(identity.digest, bytes);
    }

    async fn manifest(&self, name: &str, reference: &str, manifest: RawManifest) -> Result<(), String> {
        self.manifests.lock().unwrap().push((name.to_owned(), reference.to_owned(), manifest));
        Ok(())
    }
}

/// An endpoint over a directory, with one image on its first shelf and another scope's on the second.
struct Served {
    endpoint: Endpoint,
    pushed: Arc<Pushed>,
    directory: tempfile::TempDir,
    image: ImageRef,
    other: ImageRef,
    layer: Bytes,
    config: Bytes,
}

fn layer(text: &str) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", text.as_bytes()).unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = Digest::hash(&tar).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    (gzip.finish().unwrap(), diff_id)
}

async fn put(shelf: &CacheRepository, text: &str) -> (Bytes, Bytes) {
    let (layer, diff_id) = layer(text);
    let (layer, config) = (
        Bytes::from(layer),
        Bytes::from(
            json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id] } })
                .to_string(),
        ),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::new(media_type::OCI_CONFIG, Digest::hash(&config), config.len() as u64),
        "layers": [Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::hash(&layer), layer.len() as u64)],
    });
    for blob in [&layer, &config] {
        shelf.upload(&BytesSource::new(blob.clone()), None, Arc::new(|_| ())).await.unwrap();
    }
    let raw = RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap();
    shelf.put_manifest(&raw, "latest").await.unwrap();
    (layer, config)
}

async fn serve() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(Arc::new(DirectoryStore::new(directory.path().join("store"))));
    let address = Address::bind().await.unwrap();
    let shelf = |scope: &str, place: &str| CacheRepository::new(blobs.clone(), scope, "app", address.repository(place), true);
    let (own, foreign) = (shelf("main", "0/app"), shelf("other", "1/app"));
    let (layer, config) = put(&own, &"content ".repeat(1000)).await;
    put(&foreign, "another scope's").await;
    let (image, other) = (address.repository("0/app").tag("latest"), address.repository("1/app").tag("latest"));
    let pushed = Arc::new(Pushed::default());
    let spool = directory.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let endpoint = address.serve(vec![own, foreign], Some(Arc::clone(&pushed) as _), spool);
    Served { endpoint, pushed, directory, image, other, layer, config }
}

impl Served {
    /// A URL below a repository.
    fn url(image: &ImageRef, rest: &str) -> String {
        format!("http://{}/v2/{}/{rest}", image.repository.host, image.repository.path)
    }

    fn to(&self) -> ImageRef {
        self.endpoint.reference("pushed")
    }
}

fn client() -> reqwest::Client {
    hakobi::registry::install_crypto();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn ask(method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> reqwest::Response {
    let request = headers.iter().fold(client().request(method, url), |request, (name, value)| request.header(*name, *value));
    request.body(body).send().await.unwrap()
}

async fn get(url: &str) -> reqwest::Response {
    ask(Method::GET, url, &[], "").await
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn code(response: reqwest::Response) -> String {
    let error: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    error["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pulling_as_the_protocol_has_it() {
    let served = serve().await;
    let url = |rest: &str| Served::url(&served.image, rest);
    assert_eq!(get(&format!("http://{}/v2/", served.image.repository.host)).await.status(), StatusCode::OK);

    let tagged = get(&url("manifests/latest")).await;
    assert_eq!((tagged.status(), &*header(&tagged, "content-type")), (StatusCode::OK, media_type::OCI_MANIFEST));
    let digest = header(&tagged, "docker-content-digest");
    let bytes = tagged.bytes().await.unwrap();
    assert_eq!(Digest::hash(&bytes).to_string(), digest);
    assert_eq!(get(&url(&format!("manifests/{digest}"))).await.bytes().await.unwrap(), bytes);
    let head = ask(Method::HEAD, &url("manifests/latest"), &[], "").await;
    assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, bytes.len().to_string()));

    let blob = url(&format!("blobs/{}", Digest::hash(&served.layer)));
    let whole = get(&blob).await;
    assert_eq!(header(&whole, "docker-content-digest"), Digest::hash(&served.layer).to_string());
    assert_eq!(whole.bytes().await.unwrap(), served.layer);
    let head = ask(Method::HEAD, &blob, &[], "").await;
    assert_eq!(header(&head, "content-length"), served.layer.len().to_string());
    for (range, expected) in
        [("bytes=0-9", 0..10), ("bytes=5-", 5..served.layer.len()), ("bytes=-3", served.layer.len() - 3..served.layer.len())]
    {
        let part = ask(Method::GET, &blob, &[("range", range)], "").await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let content = format!("bytes {}-{}/{}", expected.start, expected.end - 1, served.layer.len());
        assert_eq!(header(&part, "content-range"), content);
        assert_eq!(part.bytes().await.unwrap(), served.layer[expected]);
    }
    let behind = ask(Method::GET, &blob, &[("range", "bytes=100000-")], "").await;
    assert_eq!(
        (behind.status(), &*header(&behind, "content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, &*format!("bytes */{}", served.layer.len()))
    );
    let counted = served.endpoint.served();
    assert!(counted[&Digest::hash(&served.layer)].bytes > served.layer.len() as u64);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_someone_elses() {
    let served = serve().await;
    let absent = Digest::hash(b"absent");
    for (url, expected) in [
        (Served::url(&served.image, "manifests/v9"), "MANIFEST_UNKNOWN"),
        (Served::url(&served.image, &format!("manifests/{absent}")), "MANIFEST_UNKNOWN"),
        (Served::url(&served.image, &format!("blobs/{absent}")), "BLOB_UNKNOWN"),
        (Served::url(&served.image, "blobs/sha256:12"), "BLOB_UNKNOWN"),
        (Served::url(&served.image, "tags/list"), "NAME_UNKNOWN"),
        // Another word, none, and a way around it.
        (format!("http://{}/v2/{:032}/0/app/manifests/latest", served.image.repository.host, 0), "NAME_UNKNOWN"),
        (format!("http://{}/v2/0/app/manifests/latest", served.image.repository.host), "NAME_UNKNOWN"),
        (format!("http://{}/v2/_catalog", served.image.repository.host), "NAME_UNKNOWN"),
    ] {
        let response = get(&url).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{url}");
        assert_eq!(code(response).await, expected, "{url}");
    }
    // What lies in the same store, and only another repository names.
    let foreign = get(&Served::url(&served.other, "manifests/latest")).await;
    let digest = header(&foreign, "docker-content-digest");
    let manifest: Value = serde_json::from_slice(&foreign.bytes().await.unwrap()).unwrap();
    let blob = |manifest: &Value| format!("blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let config = format!("blobs/{}", manifest["config"]["digest"].as_str().unwrap());
    for rest in [format!("manifests/{digest}"), format!("blobs/{digest}"), blob(&manifest), config] {
        for method in [Method::GET, Method::HEAD] {
            let there = ask(method.clone(), &Served::url(&served.other, &rest), &[], "").await;
            assert_eq!(there.status(), StatusCode::OK, "{method} {rest}");
            let here = ask(method.clone(), &Served::url(&served.image, &rest), &[], "").await;
            assert_eq!(here.status(), StatusCode::NOT_FOUND, "{method} {rest}");
        }
    }
    // Scopes are repositories: each has its own tag.
    let [own, other] = [&served.image, &served.other].map(|image| Served::url(image, "manifests/latest"));
    assert_ne!(get(&own).await.bytes().await.unwrap(), get(&other).await.bytes().await.unwrap());
}

/// An endpoint that was started anew on the same store, as the next run does: nothing was asked of it yet.
async fn again(served: &Served, image: &str) -> (Endpoint, CacheRepository, ImageRef) {
    let blobs = Blobs::new(Arc::new(DirectoryStore::new(served.directory.path().join("store"))));
    let address = Address::bind().await.unwrap();
    let shelf = CacheRepository::new(blobs, "main", image, address.repository("0/app"), true);
    let name = address.repository("0/app").tag("latest");
    (address.serve(vec![shelf.clone()], None, served.directory.path().join("spool")), shelf, name)
}

#[tokio::test]
async fn what_an_index_names_is_offered_with_it() {
    let served = serve().await;
    let (_first, shelf, _) = again(&served, "app").await;
    let image = hakobi::registry::Source::manifest(&shelf, "latest").await.unwrap().unwrap();
    let index = |manifests: Vec<Descriptor>| {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests });
        RawManifest::from_json(media_type::OCI_INDEX, &index).unwrap()
    };
    let inner = index(vec![image.descriptor()]);
    // As BuildKit writes its cache: an index whose entries are layers.
    let cache = Bytes::from_static(b"a cache's layer");
    shelf.upload(&BytesSource::new(cache.clone()), None, Arc::new(|_| ())).await.unwrap();
    let cache = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::hash(&cache), cache.len() as u64);
    let outer = index(vec![inner.descriptor(), cache.clone()]);
    for (manifest, name) in [(&inner, inner.digest().to_string()), (&outer, "both".to_owned())] {
        shelf.put_manifest(manifest, &name).await.unwrap();
    }
    let (_second, _, name) = again(&served, "app").await;
    let layer = format!("blobs/{}", Digest::hash(&served.layer));
    assert_eq!(get(&Served::url(&name, &layer)).await.status(), StatusCode::NOT_FOUND, "no one asked for an image");
    assert_eq!(ask(Method::HEAD, &Served::url(&name, "manifests/both"), &[], "").await.status(), StatusCode::OK);
    // A daemon that has the manifests of an earlier run asks for layers at once.
    for rest in [layer, format!("manifests/{}", image.digest()), format!("blobs/{}", cache.digest)] {
        assert_eq!(get(&Served::url(&name, &rest)).await.status(), StatusCode::OK, "{rest}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_as_the_protocol_has_it() {
    let served = serve().await;
    let (reads_only, _, pull) = again(&served, "app").await;
    let digest = Digest::hash(&served.layer);
    assert_eq!(get(&Served::url(&pull, "manifests/latest")).await.status(), StatusCode::OK);
    for (method, image, rest, expected) in [
        // Nothing is deleted, listed or written on a shelf.
        (Method::DELETE, &pull, "manifests/latest".to_owned(), 405),
        (Method::DELETE, &pull, format!("blobs/{digest}"), 405),
        (Method::PUT, &pull, "manifests/latest".to_owned(), 405),
        (Method::POST, &pull, "blobs/uploads/".to_owned(), 405),
        (Method::POST, &pull, format!("blobs/uploads/?mount={digest}&from=x"), 405),
        (Method::PATCH, &pull, "blobs/uploads/1".to_owned(), 404),
        (Method::PUT, &pull, format!("blobs/uploads/1?digest={digest}"), 404),
        (Method::GET, &pull, "tags/list".to_owned(), 404),
        (Method::GET, &pull, format!("referrers/{digest}"), 404),
        (Method::GET, &pull, "nothing".to_owned(), 404),
        // What is taken is not given back, but for manifests.
        (Method::GET, &served.to(), format!("blobs/{digest}"), 404),
        (Method::GET, &served.to(), "manifests/latest".to_owned(), 404),
        (Method::DELETE, &served.to(), "manifests/latest".to_owned(), 405),
        (Method::PUT, &served.to(), "blobs/uploads/1".to_owned(), 400),
        (Method::PUT, &served.to(), format!("blobs/uploads/1?digest={digest}"), 404),
        (Method::PUT, &served.to(), format!("manifests/{digest}"), 400),
    ] {
        let response = ask(method.clone(), &Served::url(image, &rest), &[], "{}").await;
        let status = response.status().as_u16();
        let body = code(response).await;
        assert_eq!(status, expected, "{method} {rest}: {body}");
    }
    assert!(reads_only.was_reached());
    assert!(served.pushed.blobs.lock().unwrap().is_empty() && served.pushed.manifests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_at_once_each_get_the_whole() {
    let served = serve().await;
    assert_eq!(get(&Served::url(&served.image, "manifests/latest")).await.status(), StatusCode::OK);
    let url = Served::url(&served.image, &format!("blobs/{}", Digest::hash(&served.layer)));
    let answers = futures::future::join_all((0..16).map(|_| async { get(&url).await.bytes().await.unwrap() })).await;
    assert!(answers.iter().all(|bytes| *bytes == served.layer));
}

#[tokio::test]
async fn a_damaged_blob_never_comes_whole() {
    let served = serve().await;
    let digest = Digest::hash(&served.layer);
    let path = served.directory.path().join("store").join(Name::blob(&digest).as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let url = Served::url(&served.image, &format!("blobs/{digest}"));
    // Short as it is, it may end before its headers are sent.
    let broken = async { client().get(&url).send().await?.error_for_status()?.bytes().await };
    assert!(broken.await.is_err(), "it ends before its last byte");
    // From then on it is refused: a daemon does not ask again for what is denied.
    let again = get(&url).await;
    assert_eq!(again.status(), StatusCode::FORBIDDEN);
    assert_eq!(code(again).await, "DENIED");
}

#[tokio::test]
async fn pushing_as_the_protocol_has_it() {
    let served = serve().await;
    let to = served.to();
    let begin = || async {
        let begun = ask(Method::POST, &Served::url(&to, "blobs/uploads/"), &[], "").await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = header(&begun, "location");
        if location.starts_with('/') { format!("http://{}{location}", to.repository.host) } else { location }
    };
    let with =
        |location: &str, digest: &Digest| format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
    let blob = Bytes::from(vec![7_u8; 100_000]);
    let digest = Digest::hash(&blob);

    // Whole.
    let put = ask(Method::PUT, &with(&begin().await, &digest), &[], blob.clone()).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(served.pushed.blobs.lock().unwrap()[&digest], blob);
    assert_eq!(ask(Method::HEAD, &Served::url(&to, &format!("blobs/{digest}")), &[], "").await.status(), StatusCode::OK);
    // In parts.
    let parted = Bytes::from(vec![8_u8; 100_000]);
    let location = begin().await;
    let first = ask(Method::PATCH, &location, &[("content-range", "0-59999")], parted.slice(..60_000)).await;
    assert_eq!((first.status(), &*header(&first, "range")), (StatusCode::ACCEPTED, "0-59999"));
    let wrong = ask(Method::PATCH, &location, &[("content-range", "70000-79999")], parted.slice(70_000..80_000)).await;
    assert_eq!(wrong.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let second = ask(Method::PATCH, &location, &[("content-range", "60000-99999")], parted.slice(60_000..)).await;
    assert_eq!(second.status(), StatusCode::ACCEPTED);
    assert_eq!(ask(Method::PUT, &with(&location, &Digest::hash(&parted)), &[], "").await.status(), StatusCode::CREATED);
    assert_eq!(served.pushed.blobs.lock().unwrap()[&Digest::hash(&parted)], parted);
    // With another digest: refused, and nothing is handed over.
    let refused = ask(Method::PUT, &with(&begin().await, &Digest::hash(b"other")), &[], blob).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(code(refused).await, "DIGEST_INVALID");
    assert_eq!(served.pushed.blobs.lock().unwrap().len(), 2);
    // Given up.
    let location = begin().await;
    assert_eq!(ask(Method::DELETE, &location, &[], "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(ask(Method::PATCH, &location, &[], "x").await.status(), StatusCode::NOT_FOUND);
}

/// Everything of the image, as a client read it.
fn compared(served: &Served, directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    for bytes in [&served.layer, &served.config] {
        assert_eq!(std::fs::read(blobs.join(Digest::hash(bytes).hex())).unwrap(), bytes[..]);
    }
}

/// The configuration, which has the layers' diff IDs.
fn compared_config(served: &Served, directory: &Path) {
    let path = directory.join("blobs/sha256").join(Digest::hash(&served.config).hex());
    assert_eq!(std::fs::read(path).unwrap(), served.config[..]);
}

fn oras(arguments: &[&str]) {
    Run::of(Command::new(part("HAKOBI_TEST_ORAS")).args(arguments)).exits(0);
}

/// buildah with a storage of its own.
fn buildah(storage: &Path, arguments: &[&str]) {
    let at = |name: &str| storage.join(name).to_str().unwrap().to_owned();
    let own = [String::from("--root"), at("containers"), String::from("--runroot"), at("run")];
    Run::of(Command::new(part("HAKOBI_TEST_BUILDAH")).args(own).args(arguments)).exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_pull_and_push() {
    let served = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let digest = header(&get(&Served::url(&served.image, "manifests/latest")).await, "docker-content-digest");
    let by_digest = format!("{}@{digest}", served.image.repository);
    tokio::task::block_in_place(|| {
        for (place, source) in [served.image.to_string(), by_digest].iter().enumerate() {
            let out = at(&format!("skopeo-{place}"));
            skopeo(&["copy", "-q", "--src-tls-verify=false", &format!("docker://{source}"), &format!("oci:{out}:x")]);
            compared(&served, Path::new(&out));
            let out = at(&format!("crane-{place}"));
            crane(&["pull", "--format", "oci", source, &out]);
            compared(&served, Path::new(&out));
            let out = at(&format!("oras-{place}"));
            oras(&["cp", "--from-plain-http", source, "--to-oci-layout", &format!("{out}:x")]);
            compared(&served, Path::new(&out));
            let out = at(&format!("buildah-{place}"));
            buildah(folder.path(), &["pull", "-q", "--tls-verify=false", &format!("docker://{source}")]);
            buildah(folder.path(), &["push", "-q", source, &format!("oci:{out}:x")]);
            compared_config(&served, Path::new(&out));
        }
        type Push<'a> = &'a dyn Fn(&str);
        let pushes: [(&str, Push<'_>); 4] = [
            ("skopeo", &|to| {
                let from = format!("oci:{}:x", at("skopeo-0"));
                skopeo(&["copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{to}")]);
            }),
            ("crane", &|to| {
                crane(&["push", &at("crane-0"), to]);
            }),
            ("oras", &|to| {
                oras(&["cp", "--from-oci-layout", &format!("{}:x", at("oras-0")), "--to-plain-http", to]);
            }),
            ("buildah", &|to| {
                buildah(
                    folder.path(),
                    &["push", "-q", "--tls-verify=false", &served.image.to_string(), &format!("docker://{to}")],
                );
            }),
        ];
        for (client, push) in pushes {
            served.pushed.blobs.lock().unwrap().clear();
            served.pushed.manifests.lock().unwrap().clear();
            push(&served.endpoint.reference(client).to_string());
            let blobs = served.pushed.blobs.lock().unwrap();
            // buildah keeps layers unpacked, and compresses them in its own way.
            let own: &[&Bytes] = if client == "buildah" { &[&served.config] } else { &[&served.layer, &served.config] };
            for bytes in own {
                assert_eq!(blobs.get(&Digest::hash(bytes)).map(Vec::as_slice), Some(&bytes[..]), "{client}");
            }
            let manifests = served.pushed.manifests.lock().unwrap();
            assert!(manifests.iter().any(|(name, tag, _)| name == client && tag == "image"), "{client}: {manifests:?}");
        }
    });
}
