//! Provides registry credentials for the daemon's own pulls.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard_buildkit_proto::moby::filesync::v1 as api;
use tonic::{Request, Response, Status};

use crate::event::Events;

/// Credentials of a registry. An identity token has no user name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

/// A source of credentials.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// Returns the credentials for a host. Returns `None` if there are none.
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, String>;
}

pub(super) struct AuthService {
    source: Arc<dyn CredentialSource>,
    events: Events,
    told: Mutex<HashSet<String>>,
}

impl AuthService {
    pub(super) fn new(source: Arc<dyn CredentialSource>, events: Events) -> Self {
        Self { source, events, told: Mutex::default() }
    }
}

#[tonic::async_trait]
impl api::auth_server::Auth for AuthService {
    async fn credentials(&self, request: Request<api::CredentialsRequest>) -> Result<Response<api::CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let found = self.source.credentials(&host).await.map_err(Status::unknown)?.unwrap_or_default();
        if !found.secret.is_empty() && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone()) {
            self.events.step(format!("[auth] sharing credentials for {host}")).done();
        }
        Ok(Response::new(api::CredentialsResponse { username: found.username, secret: found.secret }))
    }

    async fn fetch_token(&self, _: Request<api::FetchTokenRequest>) -> Result<Response<api::FetchTokenResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens itself"))
    }

    async fn get_token_authority(
        &self,
        _: Request<api::GetTokenAuthorityRequest>,
    ) -> Result<Response<api::GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens itself"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<api::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<api::VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens itself"))
    }
}
