//! The artifact of one scope and image in a registry: a manifest under a tag, whose first layer is the bundle. Its other layers are
//! the blobs that records name, so that neither a garbage collection nor a lifecycle rule for untagged images removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::bundle::{Bundle, Unreadable, VERSION};
use super::fault::{fault, is_absent};
use super::progress::progress;
use crate::domain::{Descriptor, Digest, RawManifest, media_type};
use crate::registry::{Client, Kind, Put};
use crate::store::{Error, Fault, Pace, Result};
use crate::transfer::{BlobSource as _, BytesSource};

/// Largest bundle in a registry in bytes, compressed.
const LARGEST: u64 = 64 << 20;

/// The annotation that says what the artifact is; its value is the version of the layout.
const ANNOTATION: &str = "dev.hakobi.cache";

/// The annotations with the scope and the image, for people who look at the registry.
const SCOPE: &str = "dev.hakobi.cache.scope";
const IMAGE: &str = "dev.hakobi.cache.image";

/// The configuration of an image that cannot run. Registries that know nothing but images accept it, and BuildKit stores its
/// attestations under the same platform.
const CONFIG: &[u8] =
    br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

/// What a tag had when it was read.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The manifest, or `None` if there is no such tag.
    pub digest: Option<Digest>,
    pub bundle: Arc<Bundle>,
    /// Whether the tag exists, but its bundle is damaged or gone.
    pub is_damaged: bool,
}

/// Reads the artifact of a tag. If there is none, the bundle is `empty`.
///
/// # Errors
/// If the registry does not answer, or another version of hakobi wrote the artifact.
pub async fn load(client: &Client, pace: &Pace, tag: &str, empty: Bundle) -> Result<Artifact> {
    let first = load_once(client, pace, tag, empty.clone()).await?;
    if !first.is_damaged {
        return Ok(first);
    }
    // Another run may have replaced the artifact in between, and some registries remove the old blob at once.
    load_once(client, pace, tag, empty).await
}

async fn load_once(client: &Client, pace: &Pace, tag: &str, empty: Bundle) -> Result<Artifact> {
    let absent = |empty| Artifact { digest: None, bundle: Arc::new(empty), is_damaged: false };
    let manifest = match client.manifest(tag).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(absent(empty)),
        Err(error) if is_absent(&error) => return Ok(absent(empty)),
        Err(error) if error.kind == Kind::Damaged => {
            return Ok(Artifact { digest: None, bundle: Arc::new(empty), is_damaged: true });
        }
        Err(error) => return Err(fault(&error)),
    };
    let digest = Some(manifest.digest());
    let damaged = |empty| Artifact { digest: digest.clone(), bundle: Arc::new(empty), is_damaged: true };
    let Ok(manifest) = manifest.manifest() else { return Ok(damaged(empty)) };
    match manifest.annotations.get(ANNOTATION).and_then(|version| version.parse().ok()) {
        None => return Ok(damaged(empty)),
        Some(VERSION) => {}
        Some(version) => return Err(other_version(version)),
    }
    let Some(layer) = manifest.layers.into_iter().next() else { return Ok(damaged(empty)) };
    let bytes = match client.read_blob(&layer.digest, LARGEST).await {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Damaged | Kind::TooLarge) => return Ok(damaged(empty)),
        Err(error) => return Err(fault(&error)),
    };
    pace.moved(bytes.len() as u64);
    match Bundle::decode(&bytes) {
        Ok(bundle) => Ok(Artifact { digest, bundle: Arc::new(bundle), is_damaged: false }),
        Err(Unreadable::Damaged) => Ok(damaged(empty)),
        Err(Unreadable::Version(version)) => Err(other_version(version)),
    }
}

fn other_version(version: u32) -> Error {
    let what = format!("its layout version is {version}, but this hakobi supports {VERSION}");
    Error::new(Fault::Other, what).hint("use a newer hakobi or another prefix")
}

/// Writes the artifact of a bundle under a tag, in place of the one that was `there`. Returns the digest of its manifest. Returns
/// `None` if the tag has another one by now.
///
/// # Errors
/// If the registry does not accept it.
pub async fn save(client: &Client, pace: &Pace, tag: &str, bundle: &mut Bundle, there: &Artifact) -> Result<Option<Digest>> {
    let bytes = Bytes::from_static(CONFIG);
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::hash(&bytes), bytes.len() as u64);
    // The second attempt leaves out the blobs that the registry has lost.
    for is_last in [false, true] {
        if there.digest.is_none() || there.is_damaged || is_last {
            upload(client, pace, bytes.clone(), media_type::OCI_CONFIG).await?;
        }
        let encoded =
            bundle.encode().map_err(|error| Error::new(Fault::Other, format!("failed to pack the records: {error}")))?;
        let packed = upload(client, pace, encoded, media_type::OCI_LAYER_GZIP).await?;
        let manifest = manifest(bundle, &config, packed).map_err(|error| Error::new(Fault::Other, error.to_string()))?;
        // Some registries deny to look at what is not there. A manifest that cannot be read has no digest to compare with.
        let is_unreadable = there.is_damaged && there.digest.is_none();
        if !is_unreadable
            && let Ok(now) = client.head_manifest(tag).await
            && now.map(|now| now.digest) != there.digest
        {
            return Ok(None);
        }
        match client.put_manifest(&manifest, tag).await {
            Ok(Put::Pushed | Put::AlreadyThere) => return Ok(Some(manifest.digest())),
            Err(error) if error.kind == Kind::TagImmutable => {
                return Err(Error::new(Fault::Denied, "its repository does not allow tags to move").hint(
                    "name a repository with mutable tags: `--cache oci://HOST/REPOSITORY` or `--cache-repository`, with `--create-repository` on ECR",
                ));
            }
            Err(error) if is_last || !matches!(error.kind, Kind::Refused | Kind::NotFound) => return Err(fault(&error)),
            Err(_) => {
                let digests: Vec<Digest> = bundle.named_blobs().map(|(digest, _)| digest.clone()).collect();
                let present = client.present(&digests).await.map_err(|error| fault(&error))?;
                bundle.forget_lost(&present);
            }
        }
    }
    Err(Error::new(Fault::Other, "failed to save the records"))
}

/// Uploads small bytes. Returns their descriptor.
async fn upload(client: &Client, pace: &Pace, bytes: Bytes, media_type: &str) -> Result<Descriptor> {
    let source = BytesSource::new(bytes);
    let identity = source.identity().await.map_err(|error| Error::new(Fault::Source, error.to_string()))?;
    client.upload(&source, None, progress(pace)).await.map_err(|error| fault(&error))?;
    Ok(Descriptor::new(media_type, identity.digest, identity.size))
}

fn manifest(bundle: &Bundle, config: &Descriptor, packed: Descriptor) -> serde_json::Result<RawManifest> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: &'a Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<&'a str, String>,
    }
    // The type is nominal: nobody unpacks the artifact, but some registries accept no other types.
    let layer = |(digest, size): (&Digest, u64)| Descriptor::new(media_type::OCI_LAYER_GZIP, digest.clone(), size);
    let mut layers = vec![packed];
    let mut named: BTreeSet<&Digest> = BTreeSet::new();
    layers.extend(bundle.named_blobs().filter(|(digest, _)| named.insert(digest)).map(layer));
    let annotations =
        BTreeMap::from([(ANNOTATION, bundle.version.to_string()), (SCOPE, bundle.scope.clone()), (IMAGE, bundle.image.clone())]);
    let manifest = Manifest { schema_version: 2, media_type: media_type::OCI_MANIFEST, config, layers, annotations };
    RawManifest::from_json(media_type::OCI_MANIFEST, &manifest)
}
