//! Finds blobs and reads them. hakobi verifies a blob while it streams, and resumes after a broken connection.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, Url};
use tokio_util::io::StreamReader;

use super::auth::Scope;
use super::client::Client;
use super::error::{Error, Kind, Result};
use super::home::{self, Source};
use super::http::describe;
use super::manifest::header;
use super::rate::too_slow;
use super::reply::Reply;
use super::retry::{Attempts, Pulse};
use crate::domain::{Descriptor, Digest, Hasher};
use crate::transfer::{BlobSource, ByteStream, Identity};

/// The number of blobs in one repository that hakobi looks up at once.
const ASKED_AT_ONCE: usize = 8;

impl Client {
    /// Returns whether the repository has this blob.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable.
    pub async fn has(&self, digest: &Digest) -> Result<bool> {
        self.blob_size(digest).await.map(|size| size.is_some())
    }

    /// Returns the size of this blob, in bytes. Returns `None` if the repository does not have it, or does not state its size.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let what = format!("look for the blob {digest}");
        let host = &*self.host;
        let url = host.url(&format!("{}/blobs/{digest}", self.repository.path)).await?;
        let scope = Scope::pull(&self.repository.path);
        let make = |client: &reqwest::Client, url: Url| client.head(url);
        match host.send(&what, &self.repository, &scope, &url, host.shared.patience.stall, make).await? {
            Reply::Ok(response) => {
                let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
                Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
            }
            Reply::Refused(refusal) if refusal.status == 404 => Ok(None),
            Reply::Refused(refusal) => Err(refusal.error(&what, &self.repository).needs("ecr:BatchCheckLayerAvailability")),
        }
    }

    /// Returns those of these blobs that the repository has, with their sizes in bytes.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable.
    pub async fn present(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        let unique: HashSet<&Digest> = digests.iter().collect();
        let unique: Vec<Digest> = unique.into_iter().cloned().collect();
        // For a single blob hakobi uses the protocol: that needs no call of AWS's API.
        if unique.len() > 1
            && let Some(ecr) = &self.host.ecr
        {
            let available = self.host.shared.ecr.available(&self.host.name, ecr, &self.repository.path, &unique).await;
            // A login from config.json has no AWS credentials. Then hakobi looks up each blob separately.
            if let Ok(there) = available {
                return Ok(there);
            }
        }
        let answers = stream::iter(unique)
            .map(|digest| async move { self.blob_size(&digest).await.map(|size| size.map(|size| (digest, size))) })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        answers.into_iter().filter_map(Result::transpose).collect()
    }

    /// Reads and verifies a small blob, such as a config, as a whole.
    ///
    /// # Errors
    /// If it does not exist, is larger than `cap` bytes, or does not match its digest.
    pub async fn read_blob(&self, digest: &Digest, cap: u64) -> Result<Bytes> {
        home::read_blob(self, digest, cap).await
    }

    /// Returns a blob's bytes from this offset. From offset 0 hakobi verifies them: the stream of wrong bytes ends with an error.
    /// hakobi resumes after a broken connection. Errors of the stream contain this room's [`Error`].
    ///
    /// # Errors
    /// If the blob does not exist ([`Kind::NotFound`]) or the registry is unreachable.
    pub async fn open_blob(&self, digest: &Digest, size: Option<u64>, offset: u64) -> Result<ByteStream> {
        if let Some(mirror) = self.mirror() {
            match Reader::open(mirror, digest.clone(), size, offset).await {
                Ok(reader) => return Ok(reader.into_stream()),
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => self.mirror_failed(&error),
            }
        }
        Ok(Reader::open(self.clone(), digest.clone(), size, offset).await?.into_stream())
    }
}

/// The reader of a blob from one repository's registry.
struct Reader {
    client: Client,
    digest: Digest,
    what: String,
    size: Option<u64>,
    position: u64,
    /// The hash of all bytes. `None` if the stream did not begin with the first byte.
    hasher: Option<Hasher>,
    response: Option<Response>,
    /// The number of bytes to skip, if an answer begins before the requested offset.
    skip: u64,
    attempts: Attempts,
}

impl Reader {
    async fn open(client: Client, digest: Digest, size: Option<u64>, offset: u64) -> Result<Self> {
        let attempts = Attempts::new(&client.host.shared.patience, &Pulse::default());
        let mut reader = Self {
            what: format!("read the blob {digest}"),
            client,
            digest,
            size,
            position: offset,
            hasher: (offset == 0).then(Hasher::default),
            response: None,
            skip: 0,
            attempts,
        };
        if size.is_none_or(|size| offset < size) {
            reader.connect().await?;
        }
        Ok(reader)
    }

    async fn connect(&mut self) -> Result<()> {
        let host = &*self.client.host;
        let repository = &self.client.repository;
        let url = host.url(&format!("{}/blobs/{}", repository.path, self.digest)).await?;
        let scope = Scope::pull(&repository.path);
        let position = self.position;
        let make = |client: &reqwest::Client, url: Url| match position {
            0 => client.get(url),
            _ => client.get(url).header(RANGE, format!("bytes={position}-")),
        };
        let limit = host.shared.patience.stall;
        let response = match host.send(&self.what, repository, &scope, &url, limit, make).await? {
            Reply::Ok(response) => response,
            Reply::Refused(refusal) => return Err(refusal.error(&self.what, repository).needs("ecr:GetDownloadUrlForLayer")),
        };
        let begins = match response.status().as_u16() {
            206 => header(response.headers(), CONTENT_RANGE.as_str()).and_then(|text| range_start(&text)).unwrap_or(position),
            _ => 0,
        };
        if begins > position {
            return Err(Error::at(Kind::Refused, &*self.what, repository).because("the registry returned a different range"));
        }
        self.skip = position - begins;
        if self.size.is_none() {
            self.size = response.content_length().map(|length| begins.saturating_add(length));
        }
        self.response = Some(response);
        Ok(())
    }

    /// Returns the next bytes. Returns `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.size == Some(self.position) && self.skip == 0 {
                return self.end();
            }
            if self.response.is_none() {
                self.connect().await?;
            }
            let host = Arc::clone(&self.client.host);
            let patience = &host.shared.patience;
            let Some(response) = self.response.as_mut() else { continue };
            let since = Instant::now();
            let cause = match tokio::time::timeout(patience.stall, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    if host.rate.waited(since, bytes.len() as u64, patience) {
                        let error = Error::at(Kind::Network, &*self.what, &self.client.repository);
                        return Err(error.because(&too_slow(patience)));
                    }
                    match self.take(bytes)? {
                        Some(bytes) => return Ok(Some(bytes)),
                        None => continue,
                    }
                }
                Ok(Ok(None)) if self.size.is_none() => {
                    self.size = Some(self.position);
                    continue;
                }
                Ok(Ok(None)) => "the connection ended before the end of the blob".to_owned(),
                Ok(Err(error)) => describe(&error),
                Err(_) => "the connection stalled".to_owned(),
            };
            self.response = None;
            if !self.attempts.again(None).await {
                let error = Error::at(Kind::Network, &*self.what, &self.client.repository).because(&cause);
                return Err(self.attempts.ended(error));
            }
        }
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.split_off(skipped);
        self.skip -= skipped as u64;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.position += bytes.len() as u64;
        if self.size.is_some_and(|size| self.position > size) {
            return Err(Error::at(Kind::Damaged, &*self.what, &self.client.repository).because("it is longer than expected"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.attempts.progressed();
        Ok(Some(bytes))
    }

    fn end(&mut self) -> Result<Option<Bytes>> {
        self.response = None;
        match self.hasher.take().map(Hasher::digest) {
            Some(digest) if digest != self.digest => Err(Error::at(Kind::Damaged, &*self.what, &self.client.repository)
                .because(&format!("its bytes have the digest {digest}"))),
            _ => Ok(None),
        }
    }

    fn into_stream(self) -> ByteStream {
        let parts = stream::try_unfold(self, |mut reader| async move {
            match reader.next().await {
                Ok(Some(bytes)) => Ok(Some((bytes, reader))),
                Ok(None) => Ok(None),
                Err(error) => Err(io::Error::other(error)),
            }
        });
        Box::pin(StreamReader::new(Box::pin(parts)))
    }
}

/// Returns the start of a range: `bytes 5-9/10` → 5.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A blob in another repository, as the source of an upload.
#[derive(Clone)]
pub struct RemoteBlob {
    from: Arc<dyn Source>,
    identity: Identity,
}

impl RemoteBlob {
    /// Returns the source for this blob in that repository.
    #[must_use]
    pub fn new(from: Arc<dyn Source>, blob: &Descriptor) -> Self {
        Self { from, identity: Identity { digest: blob.digest.clone(), size: blob.size } }
    }
}

#[async_trait]
impl BlobSource for RemoteBlob {
    fn known(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    async fn open(&self, offset: u64) -> io::Result<ByteStream> {
        let opened = self.from.open_blob(&self.identity.digest, Some(self.identity.size), offset).await;
        opened.map_err(io::Error::other)
    }

    async fn identity(&self) -> io::Result<Identity> {
        Ok(self.identity.clone())
    }
}
