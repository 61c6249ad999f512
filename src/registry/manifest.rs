//! Reads manifests by tag or digest, looks them up, and stores them.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::auth::Scope;
use super::client::Client;
use super::error::{Error, Kind, Result};
use super::reply::Reply;
use super::retry::{Attempts, Pulse};
use crate::domain::{Descriptor, Digest, RawManifest, Repository, media_type};

/// The maximum size of a manifest (distribution, "maximum manifest size").
const LARGEST: usize = 4 << 20;

const ACCEPTED: [&str; 4] =
    [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_INDEX];

/// The result of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The registry took the manifest.
    Pushed,
    /// The tag cannot move, and already has this manifest.
    AlreadyThere,
}

impl Client {
    /// Returns the verified manifest of a tag or digest. Returns `None` if there is none.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable, or the bytes do not match their digest.
    pub async fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        for (host, repository) in self.sources() {
            let last = host.name == self.repository.host;
            match self.manifest_from(host, repository, reference).await {
                Ok(None) if !last => {}
                Err(error) if !last => self.mirror_failed(&error),
                result => return result,
            }
        }
        Ok(None)
    }

    async fn manifest_from(
        &self,
        host: &super::host::Host,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<RawManifest>> {
        let what = format!("read the manifest {reference}");
        let url = host.url(&format!("{}/manifests/{reference}", repository.path)).await?;
        let scope = Scope::pull(&repository.path);
        let limit = host.shared.patience.stall;
        let mut attempts = Attempts::new(&host.shared.patience, &Pulse::default());
        loop {
            let reply = host.send(&what, repository, &scope, &url, limit, get).await?;
            let response = match reply {
                Reply::Ok(response) => response,
                Reply::Refused(refusal) if refusal.status == 404 => return Ok(None),
                Reply::Refused(refusal) => return Err(refusal.error(&what, repository).needs("ecr:BatchGetImage")),
            };
            let told = header(response.headers(), "docker-content-digest");
            let media_type = content_type(response.headers());
            let failure = match small_body(response, LARGEST, limit).await {
                Ok(bytes) => return verified(bytes, reference, told, media_type, &what, repository).map(Some),
                Err(failure) => failure,
            };
            let error = failure.error(&what, repository);
            if !error.is_transient() || !attempts.again(None).await {
                return Err(attempts.ended(error));
            }
        }
    }

    /// Returns the descriptor of a tag or digest, without the manifest's bytes. Returns `None` if there is none.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable.
    pub async fn head_manifest(&self, reference: &str) -> Result<Option<Descriptor>> {
        let what = format!("check the manifest {reference}");
        let host = &*self.host;
        let url = host.url(&format!("{}/manifests/{reference}", self.repository.path)).await?;
        let make = |client: &reqwest::Client, url: Url| client.head(url).header(ACCEPT, ACCEPTED.join(", "));
        let scope = Scope::pull(&self.repository.path);
        let response = match host.send(&what, &self.repository, &scope, &url, host.shared.patience.stall, make).await? {
            Reply::Ok(response) => response,
            Reply::Refused(refusal) if refusal.status == 404 => return Ok(None),
            Reply::Refused(refusal) => return Err(refusal.error(&what, &self.repository).needs("ecr:BatchGetImage")),
        };
        let headers = response.headers();
        let told = (
            header(headers, "docker-content-digest").and_then(|text| text.parse::<Digest>().ok()),
            header(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()),
            content_type(headers),
        );
        if let (Some(digest), Some(size), Some(media_type)) = told {
            return Ok(Some(Descriptor::new(&media_type, digest, size)));
        }
        // Some registries omit these headers in the answer to HEAD.
        Ok(self.manifest_from(host, &self.repository, reference).await?.map(|manifest| manifest.descriptor()))
    }

    /// Stores a manifest under a tag or its own digest.
    ///
    /// # Errors
    /// If the registry refuses; [`Kind::TagImmutable`] if the tag has another manifest and cannot move.
    pub async fn put_manifest(&self, manifest: &RawManifest, reference: &str) -> Result<Put> {
        let what = format!("push the manifest {reference}");
        let host = &*self.host;
        let url = host.url(&format!("{}/manifests/{reference}", self.repository.path)).await?;
        let scope = Scope::push(&self.repository.path);
        let make = |client: &reqwest::Client, url: Url| {
            client.put(url).header(CONTENT_TYPE, &manifest.media_type).body(manifest.bytes.clone())
        };
        let mut blobs_unknown = 0u32;
        loop {
            let refusal = match host.send(&what, &self.repository, &scope, &url, host.shared.patience.answer, make).await? {
                Reply::Ok(response) => {
                    let told = header(response.headers(), "docker-content-digest");
                    return match told {
                        Some(told) if told.parse() != Ok(manifest.digest()) => {
                            Err(Error::at(Kind::Damaged, &*what, &self.repository)
                                .because(&format!("the registry stored {told} instead of {}", manifest.digest())))
                        }
                        _ => Ok(Put::Pushed),
                    };
                }
                Reply::Refused(refusal) => refusal,
            };
            if refusal.is_immutable_tag() {
                let there = self.head_manifest(reference).await?.map(|descriptor| descriptor.digest);
                if there == Some(manifest.digest()) {
                    return Ok(Put::AlreadyThere);
                }
                return Err(refusal.error(&what, &self.repository));
            }
            // Some registries report a blob as unknown for a moment after its upload.
            let early = matches!(refusal.code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN");
            blobs_unknown += 1;
            if !early || blobs_unknown > 3 {
                return Err(refusal.error(&what, &self.repository).needs("ecr:PutImage"));
            }
            tokio::time::sleep(host.shared.patience.first_pause * blobs_unknown).await;
        }
    }

    /// Removes a manifest. Many registries do not allow that, so a refusal is no error.
    pub async fn delete_manifest(&self, digest: &Digest) {
        let what = format!("remove the manifest {digest}");
        let host = &*self.host;
        let Ok(url) = host.url(&format!("{}/manifests/{digest}", self.repository.path)).await else { return };
        let make = |client: &reqwest::Client, url: Url| client.delete(url);
        let scope = Scope::delete(&self.repository.path);
        let _ = host.send(&what, &self.repository, &scope, &url, host.shared.patience.stall, make).await;
    }
}

fn get(client: &reqwest::Client, url: Url) -> reqwest::RequestBuilder {
    client.get(url).header(ACCEPT, ACCEPTED.join(", "))
}

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = header(headers, CONTENT_TYPE.as_str())?;
    let media_type = text.split(';').next().unwrap_or_default().trim();
    ACCEPTED.contains(&media_type).then(|| media_type.to_owned())
}

/// The reason why hakobi did not read a small body.
pub(super) enum NoBody {
    TooLarge(usize),
    Broken(String),
}

impl NoBody {
    pub(super) fn error(self, what: &str, repository: &Repository) -> Error {
        match self {
            Self::TooLarge(cap) => Error::at(Kind::TooLarge, what, repository).because(&format!("it has more than {cap} bytes")),
            Self::Broken(cause) => Error::at(Kind::Network, what, repository).because(&cause),
        }
    }
}

/// Reads a body of at most `cap` bytes.
pub(super) async fn small_body(mut response: Response, cap: usize, stall: std::time::Duration) -> Result<Bytes, NoBody> {
    let mut body = Vec::new();
    loop {
        let part = tokio::time::timeout(stall, response.chunk())
            .await
            .map_err(|_| NoBody::Broken("the connection stalled".to_owned()))?
            .map_err(|error| NoBody::Broken(super::http::describe(&error)))?;
        let Some(part) = part else { return Ok(body.into()) };
        body.extend_from_slice(&part);
        if body.len() > cap {
            return Err(NoBody::TooLarge(cap));
        }
    }
}

fn verified(
    bytes: Bytes,
    reference: &str,
    told: Option<String>,
    media_type: Option<String>,
    what: &str,
    repository: &Repository,
) -> Result<RawManifest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let digest = Digest::hash(&bytes);
    let expected = reference.contains(':').then(|| reference.to_owned()).or(told);
    if let Some(expected) = expected.filter(|expected| *expected != digest.to_string() && expected.starts_with("sha256:")) {
        return Err(
            Error::at(Kind::Damaged, what, repository).because(&format!("its bytes have the digest {digest}, not {expected}"))
        );
    }
    let typed: Typed =
        serde_json::from_slice(&bytes).map_err(|_| Error::at(Kind::Damaged, what, repository).because("it is not JSON"))?;
    if typed.schema_version == 1 {
        return Err(
            Error::at(Kind::Refused, what, repository).because("it has Docker's schema 1, which engines no longer support")
        );
    }
    let media_type = match (media_type, typed.media_type.as_str(), typed.manifests.is_some()) {
        (_, own, _) if ACCEPTED.contains(&own) => own.to_owned(),
        (Some(told), ..) => told,
        (None, _, true) => media_type::OCI_INDEX.to_owned(),
        (None, _, false) => media_type::OCI_MANIFEST.to_owned(),
    };
    Ok(RawManifest { media_type, bytes })
}
