//! A registry in memory. Requests that match a rule fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::files::{Files, digest, gzipped, plain};
use crate::http_fake::{Answer, Say, Server, answer, body, refusal, serve};

/// A fault of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFault {
    /// The response has this status.
    Status(u16),
    /// The connection is cut.
    Cut,
    /// There is never an answer.
    Stall,
    /// One bit of the blob is flipped.
    Damaged,
}

/// A rule for the requests of a method whose path contains this text: the first `skip` succeed, and the next `times` fail.
struct Rule {
    method: &'static str,
    path: String,
    skip: usize,
    times: usize,
    fault: RegistryFault,
}

#[derive(Default)]
struct State {
    blobs: HashMap<(String, String), Bytes>,
    /// The media type and the bytes, by repository and tag or digest.
    manifests: HashMap<(String, String), (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    rules: Vec<Rule>,
    requests: Vec<String>,
    /// The number of manifests that came before their blobs.
    too_early: usize,
    /// The number of requests that never got an answer.
    stalled: usize,
}

/// The registry. It stops when this value is dropped.
pub struct Registry {
    state: Arc<Mutex<State>>,
    server: Server,
}

/// The parts of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub files: Files,
    pub config: Value,
    pub layers: usize,
}

impl Registry {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let served = Arc::clone(&state);
        let server = serve(move |request| {
            let state = Arc::clone(&served);
            Box::pin(async move { handle(&state, request).await })
        })
        .await;
        Self { state, server }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    pub fn fails(&self, method: &'static str, path: &str, skip: usize, times: usize, fault: RegistryFault) {
        self.state.lock().unwrap().rules.push(Rule { method, path: path.to_owned(), skip, times, fault });
    }

    /// Removes all content of a repository.
    pub fn forget(&self, repository: &str) {
        let mut state = self.state.lock().unwrap();
        state.blobs.retain(|(own, _), _| own != repository);
        state.manifests.retain(|(own, _), _| own != repository);
    }

    /// Loses the tags that begin with this, as a lifecycle rule removes them.
    pub fn forget_tags(&self, repository: &str, start: &str) {
        self.state.lock().unwrap().manifests.retain(|(own, tag), _| own != repository || !tag.starts_with(start));
    }

    /// Loses the blob at this place among those of a repository, in the order of their digests. Returns whether there is one.
    pub fn lose_blob(&self, repository: &str, place: usize) -> bool {
        let mut blobs: Vec<String> =
            self.state.lock().unwrap().blobs.keys().filter(|(own, _)| own == repository).map(|(_, blob)| blob.clone()).collect();
        blobs.sort_unstable();
        blobs.get(place).is_some_and(|blob| self.lose_blob_of(repository, blob))
    }

    /// Loses this blob of a repository.
    pub fn lose_blob_of(&self, repository: &str, blob: &str) -> bool {
        self.state.lock().unwrap().blobs.remove(&(repository.to_owned(), blob.to_owned())).is_some()
    }

    /// How many manifests a repository has.
    pub fn manifests(&self, repository: &str) -> usize {
        self.state.lock().unwrap().manifests.keys().filter(|(own, name)| own == repository && name.contains(':')).count()
    }

    /// Replaces the texts of all manifests under tags.
    pub fn replace_manifests(&self, repository: &str, replace: impl Fn(&str) -> String) {
        let mut state = self.state.lock().unwrap();
        for ((own, _), (_, bytes)) in state.manifests.iter_mut().filter(|((_, tag), _)| !tag.contains(':')) {
            if own == repository {
                *bytes = replace(std::str::from_utf8(bytes).unwrap()).into();
            }
        }
    }

    /// Lets a tag name the manifest of another tag.
    pub fn move_tag(&self, repository: &str, tag: &str, to: &str) {
        let mut state = self.state.lock().unwrap();
        let manifest = state.manifests[&(repository.to_owned(), to.to_owned())].clone();
        state.manifests.insert((repository.to_owned(), tag.to_owned()), manifest);
    }

    /// The tags of a repository.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.manifests.keys().filter(|(own, tag)| own == repository && !tag.contains(':')).map(|(_, tag)| tag.clone()).collect()
    }

    /// Removes the blobs of a repository that no manifest names, and the manifests without a tag, as a garbage collection does.
    /// Returns how many blobs went.
    pub fn collect_garbage(&self, repository: &str) -> usize {
        let mut state = self.state.lock().unwrap();
        let tagged: Vec<String> = state
            .manifests
            .iter()
            .filter(|((own, tag), _)| own == repository && !tag.contains(':'))
            .map(|(_, (_, bytes))| digest(bytes))
            .collect();
        state.manifests.retain(|(own, reference), _| own != repository || !reference.contains(':') || tagged.contains(reference));
        let named: String = state
            .manifests
            .iter()
            .filter(|((own, _), _)| own == repository)
            .map(|(_, (_, bytes))| String::from_utf8_lossy(bytes).into_owned())
            .collect();
        let before = state.blobs.len();
        state.blobs.retain(|(own, blob), _| own != repository || named.contains(blob.as_str()));
        before - state.blobs.len()
    }

    /// Returns whether a request never got an answer.
    pub fn is_stalled(&self) -> bool {
        self.state.lock().unwrap().stalled > 0
    }

    pub fn mend(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Returns the requests since the last call, as `METHOD PATH`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Adds an image with these layers and this config. Returns its name.
    pub fn put_image(&self, repository: &str, layers: &[Files], config: Value) -> String {
        let mut state = self.state.lock().unwrap();
        let mut put = |bytes: Bytes| {
            let name = digest(&bytes);
            state.blobs.insert((repository.to_owned(), name.clone()), bytes.clone());
            json!({ "digest": name, "size": bytes.len() })
        };
        let mut below = Files::default();
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in layers {
            let mut all = below.clone();
            all.0.extend(layer.0.clone());
            let tar = all.layer_on(&below);
            diff_ids.push(digest(&tar));
            let mut descriptor = put(gzipped(&tar));
            descriptor["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
            descriptors.push(descriptor);
            below = all;
        }
        let history: Vec<Value> =
            layers.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z", "created_by": "base" })).collect();
        let config = json!({
            "architecture": super::architecture(), "os": "linux", "created": "2024-01-01T00:00:00Z", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
        });
        let mut descriptor = put(config.to_string().into());
        descriptor["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": descriptor, "layers": descriptors });
        let bytes = Bytes::from(manifest.to_string());
        for name in ["latest".to_owned(), digest(&bytes)] {
            state.manifests.insert((repository.to_owned(), name), (kind.to_owned(), bytes.clone()));
        }
        format!("{}/{repository}:latest", self.server.address)
    }

    /// Returns the digests of an image's layers.
    pub fn layers(&self, repository: &str, tag: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let (_, manifest) = &state.manifests[&(repository.to_owned(), tag.to_owned())];
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the digest of the image with a tag. Returns `None` if the tag does not exist.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        state.manifests.get(&(repository.to_owned(), tag.to_owned())).map(|(_, bytes)| digest(bytes))
    }

    /// Fails the test unless every manifest of all repositories came after its blobs, and still has all of them, with their sizes.
    #[track_caller]
    pub fn is_whole(&self, what: &str) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.too_early, 0, "manifests that came before their blobs: {what}");
        for ((repository, reference), (_, manifest)) in &state.manifests {
            let manifest: Value = serde_json::from_slice(manifest).unwrap();
            for blob in manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]) {
                let name = blob["digest"].as_str().unwrap();
                let bytes = state.blobs.get(&(repository.clone(), name.to_owned()));
                let bytes = bytes.unwrap_or_else(|| panic!("{repository}:{reference} lacks {name}: {what}"));
                assert_eq!(
                    (digest(bytes).as_str(), &blob["size"]),
                    (name, &json!(bytes.len())),
                    "{repository}:{reference}: {what}"
                );
            }
        }
    }

    /// Returns the image with a tag. Fails the test if a part is missing, or does not match its digest.
    pub fn image(&self, repository: &str, tag: &str) -> Image {
        let state = self.state.lock().unwrap();
        let key = |name: &str| (repository.to_owned(), name.to_owned());
        let (_, manifest) = state.manifests.get(&key(tag)).unwrap_or_else(|| panic!("no image {repository}:{tag}"));
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap();
            let bytes =
                state.blobs.get(&key(name)).unwrap_or_else(|| panic!("{repository}:{tag} names {name}, which is not there"));
            assert_eq!(digest(bytes), name);
            assert_eq!(descriptor["size"], bytes.len(), "the size of {name}");
            bytes.clone()
        };
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let mut files = Files::default();
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| {
                let tar = plain(&blob(layer)).unwrap();
                files.apply(&tar).unwrap();
                digest(&tar)
            })
            .collect();
        assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids), "the configuration's layers are those of the manifest");
        Image { files, config, layers: layers.len() }
    }
}

async fn handle(state: &Mutex<State>, request: Request<Incoming>) -> Say {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let body = body(request).await;
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{method} {path}"));
        let mut rules = state.rules.iter_mut().filter(|rule| rule.method == method && path.contains(&rule.path));
        rules.find_map(|rule| match (rule.skip, rule.times) {
            (0, 0) => None,
            (0, _) => {
                rule.times = rule.times.saturating_sub(1);
                Some(rule.fault)
            }
            _ => {
                rule.skip -= 1;
                None
            }
        })
    };
    match fault {
        Some(RegistryFault::Status(status)) => Say::This(refusal(status, "UNKNOWN", "scripted")),
        Some(RegistryFault::Cut) => Say::Cut,
        Some(RegistryFault::Stall) => {
            state.lock().unwrap().stalled += 1;
            std::future::pending().await
        }
        Some(RegistryFault::Damaged) => {
            let (parts, body) = route(state, &method, &path, &query, &kind, body).into_parts();
            let mut bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec();
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
            Say::This(Answer::from_parts(parts, http_body_util::Full::new(bytes.into())))
        }
        None => Say::This(route(state, &method, &path, &query, &kind, body)),
    }
}

fn route(state: &Mutex<State>, method: &str, path: &str, query: &str, kind: &str, body: Bytes) -> Answer {
    let mut state = state.lock().unwrap();
    let unknown = |code: &str| refusal(404, code, "it is not here");
    let asked = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let parts: Vec<&str> = path.trim_start_matches("/v2").trim_matches('/').split('/').collect();
    let reads = matches!(method, "GET" | "HEAD");
    match &parts[..] {
        [""] => answer(200, &[], ""),
        [name @ .., "blobs", "uploads"] if method == "POST" => {
            let name = name.join("/");
            let mounted = asked("mount").zip(asked("from")).and_then(|(blob, from)| {
                let bytes = state.blobs.get(&(from, blob.clone()))?.clone();
                Some((blob, bytes))
            });
            if let Some((blob, bytes)) = mounted {
                state.blobs.insert((name, blob.clone()), bytes);
                return answer(201, &[("docker-content-digest", &blob)], "");
            }
            let id = format!("{:016x}", rand::random::<u64>());
            state.uploads.insert(id.clone(), Vec::new());
            answer(202, &[("location", &format!("/v2/{name}/blobs/uploads/{id}")), ("range", "0-0")], "")
        }
        [name @ .., "blobs", "uploads", id] => {
            let Some(mut bytes) = state.uploads.remove(*id) else { return unknown("BLOB_UPLOAD_UNKNOWN") };
            bytes.extend_from_slice(&body);
            if method == "PUT" {
                let Some(named) = asked("digest").filter(|named| *named == digest(&bytes)) else {
                    return refusal(400, "DIGEST_INVALID", "other bytes");
                };
                state.blobs.insert((name.join("/"), named.clone()), bytes.into());
                return answer(201, &[("docker-content-digest", &named)], "");
            }
            let range = format!("0-{}", bytes.len().saturating_sub(1));
            state.uploads.insert((*id).to_owned(), bytes);
            answer(if method == "GET" { 204 } else { 202 }, &[("location", path), ("range", &range)], "")
        }
        [name @ .., "blobs", named] if reads => match state.blobs.get(&(name.join("/"), (*named).to_owned())) {
            Some(bytes) => sized(method, named, "application/octet-stream", bytes),
            None => unknown("BLOB_UNKNOWN"),
        },
        [name @ .., "manifests", reference] if reads => match state.manifests.get(&(name.join("/"), (*reference).to_owned())) {
            Some((kind, bytes)) => sized(method, &digest(bytes), kind, bytes),
            None => unknown("MANIFEST_UNKNOWN"),
        },
        [name @ .., "manifests", reference] if method == "PUT" => {
            let (name, own) = (name.join("/"), digest(&body));
            let manifest: Value = serde_json::from_slice(&body).unwrap_or_default();
            let named = manifest["layers"].as_array().into_iter().flatten().chain(std::iter::once(&manifest["config"]));
            let missing = |blob: &Value| {
                let blob = blob["digest"].as_str().unwrap_or_default();
                !state.blobs.contains_key(&(name.clone(), blob.to_owned()))
            };
            if manifest["layers"].is_array() && named.clone().any(missing) {
                state.too_early += 1;
                return refusal(400, "MANIFEST_BLOB_UNKNOWN", "the manifest names a blob that is not here");
            }
            for reference in [(*reference).to_owned(), own.clone()] {
                state.manifests.insert((name.clone(), reference), (kind.to_owned(), body.clone()));
            }
            answer(201, &[("docker-content-digest", &own)], "")
        }
        [name @ .., "manifests", reference] if method == "DELETE" => {
            let name = name.join("/");
            state.manifests.retain(|(own, _), (_, bytes)| *own != name || digest(bytes) != *reference);
            answer(202, &[], "")
        }
        [name @ .., "tags", "list"] if method == "GET" => {
            let name = name.join("/");
            let tags = state.manifests.keys().filter(|(own, tag)| *own == name && !tag.contains(':'));
            let mut tags: Vec<&str> = tags.map(|(_, tag)| tag.as_str()).collect();
            tags.sort_unstable();
            answer(200, &[], json!({ "name": name, "tags": tags }).to_string())
        }
        _ => unknown("NAME_UNKNOWN"),
    }
}

/// Returns a response with its length, even for HEAD.
fn sized(method: &str, named: &str, kind: &str, bytes: &Bytes) -> Answer {
    let body = if method == "HEAD" { Bytes::new() } else { bytes.clone() };
    answer(200, &[("content-length", &bytes.len().to_string()), ("content-type", kind), ("docker-content-digest", named)], body)
}
