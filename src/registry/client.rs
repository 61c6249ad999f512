//! One repository of a registry. The files `manifest`, `blob` and `upload` contain its operations.

use std::sync::Arc;

use reqwest::header::LOCATION;
use reqwest::{Response, Url};

use super::auth::Scope;
use super::error::{Error, Kind, Result};
use super::host::Host;
use super::http::send;
use super::reply::Reply;
use crate::domain::{Digest, Repository};
use crate::settings::CreateRepository;

/// A repository of a registry. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) host: Arc<Host>,
    pub(super) repository: Repository,
    mirror: Option<(Arc<Host>, Repository)>,
}

/// The facts about a push to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushAccess {
    /// Whether existing tags cannot move, if the registry says so.
    pub immutable_tags: bool,
    /// Whether hakobi has just created the repository.
    pub created: bool,
}

/// The result of the first request of an upload.
pub(super) enum Begun {
    /// The registry mounted the blob from another repository: the upload is complete.
    Mounted,
    /// The URL for the bytes.
    Session(Url),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.repository)
    }
}

impl Client {
    pub(super) fn new(host: Arc<Host>, repository: Repository, mirror: Option<(Arc<Host>, Repository)>) -> Self {
        Self { host, repository, mirror }
    }

    /// Returns the repository of this client.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the hosts to read from: the mirror first.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&Host, &Repository)> {
        let mirror = self.mirror.iter().map(|(host, repository)| (&**host, repository));
        mirror.chain(std::iter::once((&*self.host, &self.repository)))
    }

    /// Returns a client of the mirror. Returns `None` if there is no mirror.
    pub(super) fn mirror(&self) -> Option<Self> {
        let (host, repository) = self.mirror.as_ref()?;
        Some(Self { host: Arc::clone(host), repository: repository.clone(), mirror: None })
    }

    /// Returns a client that always asks the registry itself, because a mirror may have an older state of a tag.
    #[must_use]
    pub fn without_mirror(self) -> Self {
        Self { mirror: None, ..self }
    }

    /// Reports a mirror's error. A mirror is only a shortcut: hakobi then reads from the registry itself.
    pub(super) fn mirror_failed(&self, error: &Error) {
        self.host.shared.events.warning(format!("{error}; using {} directly", self.repository.host));
    }

    /// Checks whether a push would succeed: tests the credentials, and creates a missing repository on request. Cancels the upload
    /// that it begins for this.
    ///
    /// # Errors
    /// If the registry refuses; [`Kind::RepositoryMissing`] if the repository does not exist.
    pub async fn push_access(&self, create: Option<&CreateRepository>) -> Result<PushAccess> {
        if let Some(ecr) = &self.host.ecr {
            // hakobi tests the registry's login before it calls AWS's API, so that the error names a wrong login.
            self.host.start().await.map_err(|error| error.doing("log in for a push").within(&self.repository))?;
            let aws = &self.host.shared.ecr;
            match aws.describe(&self.host.name, ecr, &self.repository.path).await {
                Ok(Some(described)) => return Ok(PushAccess { immutable_tags: described.immutable_tags, created: false }),
                Ok(None) => match create {
                    Some(settings) => {
                        let made = aws.create(&self.host.name, ecr, &self.repository.path, settings).await;
                        made.map_err(|error| error.within(&self.repository))?;
                        return Ok(PushAccess { immutable_tags: settings.immutable_tags, created: true });
                    }
                    None => return Err(self.missing_repository()),
                },
                // A role that may only push cannot describe repositories. Then the registry protocol decides.
                Err(_) => {}
            }
        }
        self.try_upload().await?;
        Ok(PushAccess { immutable_tags: false, created: false })
    }

    fn missing_repository(&self) -> Error {
        Error::at(Kind::RepositoryMissing, "push", &self.repository).because("the repository does not exist")
    }

    async fn try_upload(&self) -> Result<()> {
        let Begun::Session(location) = self.begin(None).await? else { return Ok(()) };
        let scope = Scope::push(&self.repository.path);
        let limit = std::time::Duration::from_secs(20);
        // ECR and others do not support cancelling. Such an upload expires by itself.
        let request = self.host.client().await?.delete(location.clone()).timeout(limit);
        if self.host.is_own(&location).await? {
            let (request, _) = self.host.authorize(&scope, request).await?;
            let _ = send(request, 1).await;
        } else {
            let _ = send(request, 1).await;
        }
        Ok(())
    }

    /// Begins an upload, or mounts the blob from a repository of the same registry.
    pub(super) async fn begin(&self, mount: Option<(&Digest, &Repository)>) -> Result<Begun> {
        let what = "begin an upload";
        let host = &*self.host;
        let path = &self.repository.path;
        let mut url = host.url(&format!("{path}/blobs/uploads/")).await?;
        let mut scope = Scope::push(path);
        if let Some((digest, from)) = mount {
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", &from.path);
            scope = scope.and_pull(&from.path);
        }
        let make = |client: &reqwest::Client, url: Url| client.post(url).header("content-length", "0");
        let sent = host.send(what, &self.repository, &scope, &url, host.shared.patience.stall, make).await;
        let response = match sent {
            Ok(Reply::Ok(response)) => response,
            // The registry may deny access to the other repository, or refuse its token. Then hakobi uploads the blob.
            Ok(Reply::Refused(_)) | Err(_) if mount.is_some() => return Box::pin(self.begin(None)).await,
            Ok(Reply::Refused(refusal)) => {
                return Err(refusal.error(what, &self.repository).needs("ecr:InitiateLayerUpload"));
            }
            Err(error) => return Err(error),
        };
        if response.status().as_u16() == 201 && mount.is_some() {
            return Ok(Begun::Mounted);
        }
        match self.location(&response).await? {
            Some(location) => Ok(Begun::Session(location)),
            None => Err(Error::at(Kind::Refused, what, &self.repository).because("the registry's answer has no upload location")),
        }
    }

    /// Returns the URL at which an upload continues, with its query unchanged.
    pub(super) async fn location(&self, response: &Response) -> Result<Option<Url>> {
        let Some(text) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) else { return Ok(None) };
        let Ok(mut url) = response.url().join(text) else { return Ok(None) };
        let base = &self.host.start().await?.base;
        // A registry behind a proxy that terminates TLS may not know that clients use TLS.
        if url.host_str() == base.host_str() && url.scheme() == "http" && base.scheme() == "https" {
            let _ = url.set_scheme("https");
            let _ = url.set_port(base.port());
        }
        Ok(Some(url))
    }
}
