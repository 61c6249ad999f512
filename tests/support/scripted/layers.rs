//! The layers of the scripted daemon's states, and their transfer from and to registries. The daemon downloads a layer of an
//! image only if something needs its files, or if the target registry of a push lacks it.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tonic::Status;

use super::files::{Files, digest, gzipped, plain};

/// The address of an image or a blob in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub repository: String,
    pub reference: String,
}

impl Place {
    /// Parses `HOST/REPOSITORY:TAG@DIGEST`. Returns `None` if it is invalid.
    pub fn parse(name: &str) -> Option<Self> {
        let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
        let (host, rest) = name.split_once('/')?;
        let (repository, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
        let reference = digest.unwrap_or(tag).to_owned();
        Some(Self { host: host.to_owned(), repository: repository.to_owned(), reference })
    }

    pub fn url(&self, kind: &str, name: &str) -> String {
        format!("http://{}/v2/{}/{kind}/{name}", self.host, self.repository)
    }
}

pub type Result<T> = std::result::Result<T, Status>;

/// Returns a client without the machine's proxy.
pub fn client() -> reqwest::Client {
    // The client needs a crypto provider, although it uses only plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A layer, which several states may share.
#[derive(Clone)]
pub struct Layer(Arc<Inner>);

struct Inner {
    diff_id: String,
    descriptor: Value,
    blob: OnceCell<Bytes>,
    from: Option<Place>,
}

impl Layer {
    /// Creates the layer of a step.
    pub fn made(tar: &[u8]) -> Self {
        let blob = gzipped(tar);
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&blob), "size": blob.len(),
        });
        Self(Arc::new(Inner { diff_id: digest(tar), descriptor, blob: OnceCell::from(blob), from: None }))
    }

    pub fn diff_id(&self) -> &str {
        &self.0.diff_id
    }

    pub fn descriptor(&self) -> &Value {
        &self.0.descriptor
    }

    fn name(&self) -> &str {
        self.0.descriptor["digest"].as_str().unwrap_or_default()
    }

    /// Returns the bytes, which it downloads and verifies if necessary.
    pub async fn blob(&self, client: &reqwest::Client) -> Result<Bytes> {
        let fetched = self.0.blob.get_or_try_init(|| async {
            let from = self.0.from.as_ref().ok_or_else(|| Status::internal("a layer of nowhere"))?;
            let bytes = get(client, &from.url("blobs", self.name()), "").await?.1;
            verified(&bytes, self.name())?;
            Ok(bytes)
        });
        fetched.await.cloned()
    }
}

/// An image in a registry.
pub struct Pulled {
    /// The digest of the manifest.
    pub digest: String,
    pub config: Bytes,
    pub layers: Vec<Layer>,
}

async fn get(client: &reqwest::Client, url: &str, accept: &str) -> Result<(String, Bytes)> {
    let failed = |error: reqwest::Error| Status::unknown(format!("failed to copy: httpReadSeeker: failed open: {error}: {url}"));
    let answer = client.get(url).header("accept", accept).send().await.map_err(failed)?;
    let status = answer.status();
    if status == StatusCode::NOT_FOUND {
        return Err(Status::not_found(format!("could not fetch content descriptor from remote: {url}: not found")));
    }
    if !status.is_success() {
        return Err(Status::unknown(format!(
            "unexpected status from GET request to {url}: {status}, unexpected status code {}",
            status.as_u16()
        )));
    }
    let named = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    let named = named.unwrap_or_default().to_owned();
    Ok((named, answer.bytes().await.map_err(failed)?))
}

/// Fails as containerd does if bytes do not have this digest.
fn verified(bytes: &[u8], named: &str) -> Result<()> {
    let own = digest(bytes);
    let wrong = || Status::unknown(format!("failed to copy: unexpected commit digest {own}, expected {named}"));
    if own == named { Ok(()) } else { Err(wrong()) }
}

/// Looks up an image without its layers.
pub async fn pull(client: &reqwest::Client, name: &str) -> Result<Pulled> {
    let place = Place::parse(name).ok_or_else(|| Status::invalid_argument(format!("{name} is no name of an image")))?;
    const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    let (told, manifest) = get(client, &place.url("manifests", &place.reference), MANIFESTS).await?;
    let named = if place.reference.starts_with("sha256:") { &place.reference } else { &told };
    verified(&manifest, named)?;
    let broken = |error: serde_json::Error| Status::unknown(format!("{name}: {error}"));
    let parsed: Value = serde_json::from_slice(&manifest).map_err(broken)?;
    let named = parsed["config"]["digest"].as_str().unwrap_or_default();
    let config = get(client, &place.url("blobs", named), "").await?.1;
    verified(&config, named)?;
    let told: Value = serde_json::from_slice(&config).map_err(broken)?;
    let diff_ids = told["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let layers = parsed["layers"].as_array().into_iter().flatten().zip(diff_ids).map(|(descriptor, diff_id)| {
        let diff_id = diff_id.as_str().unwrap_or_default().to_owned();
        let (descriptor, from) = (descriptor.clone(), Some(place.clone()));
        Layer(Arc::new(Inner { diff_id, descriptor, blob: OnceCell::new(), from }))
    });
    Ok(Pulled { digest: digest(&manifest), layers: layers.collect(), config })
}

/// Returns the files of a chain of layers. It compares each layer with its diff ID.
pub async fn files(client: &reqwest::Client, layers: &[Layer]) -> Result<Files> {
    let mut files = Files::default();
    for layer in layers {
        let failed = |error: std::io::Error| Status::unknown(format!("failed to extract layer {}: {error}", layer.diff_id()));
        let tar = plain(&layer.blob(client).await?).map_err(failed)?;
        if digest(&tar) != layer.diff_id() {
            return Err(failed(std::io::Error::other("wrong diff id calculated on extraction")));
        }
        files.apply(&tar).map_err(failed)?;
    }
    Ok(files)
}

/// A complete image to export.
pub struct Outgoing {
    pub config: Bytes,
    pub manifest: Bytes,
    pub layers: Vec<Layer>,
}

impl Outgoing {
    /// Completes an image config like BuildKit's exporter: adds the layers, and the times in the history.
    pub fn new(config: &[u8], layers: Vec<Layer>, now: &str) -> Result<Self> {
        let broken = |error: serde_json::Error| Status::internal(format!("the configuration cannot be read: {error}"));
        let mut config: Value = serde_json::from_slice(config).map_err(broken)?;
        let diff_ids: Vec<&str> = layers.iter().map(Layer::diff_id).collect();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let mut history = config["history"].as_array().cloned().unwrap_or_default();
        let with_layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        for _ in with_layers..layers.len() {
            history.push(json!({ "created_by": "a layer", "comment": "buildkit.exporter.image.v0" }));
        }
        for entry in history.iter_mut().filter(|entry| entry.get("created").is_none()) {
            entry["created"] = json!(now);
        }
        config["created"] = json!(now);
        config["history"] = Value::Array(history);
        let config = Bytes::from(config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
            "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        Ok(Self { config, manifest: manifest.to_string().into(), layers })
    }

    /// Pushes the image: first the missing blobs, then the manifest.
    pub async fn push(&self, client: &reqwest::Client, name: &str) -> Result<()> {
        let place = Place::parse(name).ok_or_else(|| Status::invalid_argument(format!("{name} is no name of an image")))?;
        let failed = |error: reqwest::Error| Status::unknown(format!("failed to push {name}: {error}"));
        let refused = |answer: &reqwest::Response| {
            Status::unknown(format!("failed to push {name}: unexpected status from {}: {}", answer.url(), answer.status()))
        };
        let has = async |blob: &str| {
            let answer = client.head(place.url("blobs", blob)).send().await.map_err(failed)?;
            Ok::<_, Status>(answer.status().is_success())
        };
        let put = async |blob: &Bytes| {
            let begun = client.post(place.url("blobs", "uploads/")).send().await.map_err(failed)?;
            let location =
                begun.headers().get("location").and_then(|value| value.to_str().ok()).ok_or_else(|| refused(&begun))?;
            let url = format!("http://{}{location}?digest={}", place.host, digest(blob));
            let answer = client.put(url).body(blob.clone()).send().await.map_err(failed)?;
            if answer.status().is_success() { Ok(()) } else { Err(refused(&answer)) }
        };
        for layer in &self.layers {
            if !has(layer.name()).await? {
                put(&layer.blob(client).await?).await?;
            }
        }
        if !has(&digest(&self.config)).await? {
            put(&self.config).await?;
        }
        let request = client.put(place.url("manifests", &place.reference)).header("content-type", MANIFEST);
        let answer = request.body(self.manifest.clone()).send().await.map_err(failed)?;
        if answer.status().is_success() { Ok(()) } else { Err(refused(&answer)) }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
