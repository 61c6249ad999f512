//! Images to push, and registries to push them to.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use hakobi::domain::{Descriptor, Digest, ImageRef, Index, Manifest, RawManifest, Repository, media_type};
use hakobi::event::Events;
use hakobi::push::Pusher;
use hakobi::registry::{AwsSource, Options, Patience, Progress, Registries};
use hakobi::settings::RegistrySettings;
use hakobi::transfer::BytesSource;

use crate::support::ecr_fake::EcrFake;
use crate::support::parts::part;

pub struct Image {
    pub manifest: RawManifest,
    pub blobs: Vec<(Descriptor, Bytes)>,
}

/// An image of one layer that no other test has.
pub fn image(size: usize) -> Image {
    let layer = noise(size);
    let config = Bytes::from(format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}},"x":"{:x}"}}"#,
        Digest::hash(&layer),
        rand::random::<u64>()
    ));
    let blob = |kind: &str, bytes: Bytes| (Descriptor::new(kind, Digest::hash(&bytes), bytes.len() as u64), bytes);
    let config = blob(media_type::OCI_CONFIG, config);
    let layer = blob(media_type::OCI_LAYER, layer);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: config.0.clone(),
        layers: vec![layer.0.clone()],
        annotations: Default::default(),
    };
    Image { manifest: RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap(), blobs: vec![layer, config] }
}

/// An index of these images.
pub fn index(images: &[&Image]) -> RawManifest {
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: images.iter().map(|image| image.manifest.descriptor()).collect(),
        annotations: Default::default(),
    };
    RawManifest::from_json(media_type::OCI_INDEX, &index).unwrap()
}

pub fn noise(size: usize) -> Bytes {
    let mut state: u64 = rand::random();
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&state.rotate_left(23).to_le_bytes());
    }
    out.truncate(size);
    out.into()
}

pub fn reference(text: &str) -> ImageRef {
    text.parse().expect("a reference")
}

pub fn repository(host: &str, path: &str) -> Repository {
    reference(&format!("{host}/{path}")).repository
}

pub fn quiet() -> Progress {
    Arc::new(|_| {})
}

/// Short pauses, so that faults are over soon.
pub fn hasty() -> Patience {
    Patience {
        total: Duration::from_secs(20),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(200),
        stall: Duration::from_millis(800),
        answer: Duration::from_secs(10),
        ..Patience::default()
    }
}

/// A folder with a config.json.
pub fn docker_config(entries: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let auths: serde_json::Map<_, _> = entries
        .iter()
        .map(|(host, user, password)| {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            ((*host).to_owned(), serde_json::json!({ "auth": auth }))
        })
        .collect();
    std::fs::write(directory.path().join("config.json"), serde_json::json!({ "auths": auths }).to_string()).unwrap();
    directory
}

/// Without credentials, hasty.
pub fn registries() -> Registries {
    Registries::with(&RegistrySettings::default(), Events::none(), Options { patience: hasty(), aws: no_aws() })
}

/// An AWS that is not there.
pub fn no_aws() -> AwsSource {
    AwsSource::Fixed { endpoint: "http://127.0.0.1:1".into(), access_key: "x".into(), secret_key: "x".into() }
}

pub fn ecr_registries(fake: &EcrFake) -> Registries {
    let aws = AwsSource::Fixed { endpoint: fake.endpoint(), access_key: "AKIAFAKE".into(), secret_key: "fake".into() };
    Registries::with(&RegistrySettings::default(), Events::none(), Options { patience: hasty(), aws })
}

/// Logged in to the test registry that wants a login.
pub fn logged_in() -> (Registries, tempfile::TempDir, String) {
    let host = part("HAKOBI_TEST_REGISTRY");
    let directory = docker_config(&[(&host, &part("HAKOBI_TEST_REGISTRY_USER"), &part("HAKOBI_TEST_REGISTRY_PASSWORD"))]);
    let settings = RegistrySettings { docker_config: Some(directory.path().to_owned()), ..RegistrySettings::default() };
    (Registries::with(&settings, Events::none(), Options { patience: hasty(), aws: no_aws() }), directory, host)
}

pub async fn push(registries: &Registries, image: &Image, to: &Repository, tags: &[&str]) -> Result<(), String> {
    let pusher = Pusher::new(registries.clone(), vec![to.clone()], Events::none());
    for (_, bytes) in &image.blobs {
        pusher.upload(Arc::new(BytesSource::new(bytes.clone())), None);
    }
    pusher.finish_blobs().await.map_err(|error| error.error.to_string())?;
    let tags: Vec<ImageRef> = tags.iter().map(|tag| to.tag(tag)).collect();
    for outcome in pusher.put(&image.manifest, &[], &tags).await {
        outcome.state.map_err(|error| error.to_string())?;
    }
    Ok(())
}
