//! Tests pushes of other processes to the local registry: hakobi accepts only the image that the daemon made.

use std::collections::BTreeMap;
use std::sync::Arc;

use hakobi::domain::{Descriptor, DiffId, Digest, Made, RawManifest, media_type};
use hakobi::handover::{Intake, Known};
use hakobi::local_registry::Endpoint;
use hakobi::settings::Compression;
use serde_json::json;

/// A process that knows the endpoint's name, and pushes images of one layer.
struct Pushed {
    client: reqwest::Client,
    base: String,
    intake: Intake,
    _endpoint: Endpoint,
    _directory: tempfile::TempDir,
}

struct Image {
    manifest: RawManifest,
    config: Digest,
}

impl Pushed {
    async fn start() -> Self {
        hakobi::registry::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        let intake = Intake::new(Vec::new(), Known::default(), Compression::Gzip(6), directory.path().to_owned());
        let endpoint = Endpoint::start(Arc::new(intake.clone()), directory.path().to_owned()).await.unwrap();
        let name = endpoint.reference("image");
        let base = format!("http://{}/v2/{}", name.repository.host, name.repository.path);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, base, intake, _endpoint: endpoint, _directory: directory }
    }

    async fn blob(&self, bytes: &[u8]) -> Digest {
        let begun = self.client.post(format!("{}/blobs/uploads/", self.base)).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let host = self.base.split("/v2/").next().unwrap();
        let digest = Digest::hash(bytes);
        let put = self.client.put(format!("{host}{location}?digest={digest}")).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), 201);
        digest
    }

    /// An image with this layer, whose configuration says that it is the layer `says`.
    async fn image(&self, layer: &str, says: &str) -> Image {
        let diff_id = DiffId::hash(says.as_bytes());
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        });
        let config = config.to_string();
        let digest = self.blob(config.as_bytes()).await;
        self.blob(layer.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::new(media_type::OCI_CONFIG, digest.clone(), config.len() as u64),
            "layers": [Descriptor::new(media_type::OCI_LAYER, Digest::hash(layer.as_bytes()), layer.len() as u64)],
        });
        Image { manifest: RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap(), config: digest }
    }

    async fn put(&self, image: &Image) -> u16 {
        let url = format!("{}/manifests/image", self.base);
        let put = self.client.put(url).header("content-type", media_type::OCI_MANIFEST).body(image.manifest.bytes.clone());
        put.send().await.unwrap().status().as_u16()
    }

    async fn composed(&self) -> Result<Digest, String> {
        let composed = self.intake.compose("image", &BTreeMap::new()).await.map_err(|error| error.to_string())?;
        Ok(composed[0].diff_ids[0].to_string().parse().unwrap())
    }
}

fn made(digest: &Digest) -> Made {
    Made { digests: vec![digest.clone()], diff_ids: Vec::new() }
}

#[tokio::test]
async fn only_what_the_daemon_made_is_taken() {
    // BuildKit pushes itself, and says afterwards what it made.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.put(&theirs).await, 400, "a second one under the same name");
    assert_eq!(pushed.put(&ours).await, 201, "again the same");
    pushed.intake.expect("image", made(&ours.manifest.digest()), false);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));

    // The other one comes first: the build fails.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&theirs).await, 201);
    assert_eq!(pushed.put(&ours).await, 400);
    pushed.intake.expect("image", made(&ours.manifest.digest()), false);
    assert!(pushed.composed().await.unwrap_err().contains("another image was pushed"));
    assert!(pushed.intake.layers_above("image", 0).await.unwrap_err().to_string().contains("another image was pushed"));

    // Nobody says what was made.
    let pushed = Pushed::start().await;
    let ours = pushed.image("ours", "ours").await;
    assert_eq!(pushed.put(&ours).await, 201);
    assert!(pushed.composed().await.is_err());
    pushed.intake.expect("image", Made::default(), false);
    assert!(pushed.composed().await.is_err());
}

#[tokio::test]
async fn only_the_configuration_that_the_daemon_has_is_taken() {
    // An overlay2 daemon is asked to push an image that is known by its configuration.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&theirs).await, 201, "before anything is expected");
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&theirs).await, 400);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));

    // With the right configuration and another layer.
    let pushed = Pushed::start().await;
    let (ours, mixed) = (pushed.image("ours", "ours").await, pushed.image("theirs", "ours").await);
    assert_eq!(ours.config, mixed.config);
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&mixed).await, 201);
    assert!(pushed.composed().await.unwrap_err().contains("another image was pushed"));
    // Another attempt of the daemon's begins again.
    pushed.intake.begin("image");
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));
}
