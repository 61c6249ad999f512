//! Serves secrets for `RUN --mount=type=secret`. hakobi reads a value when the daemon requests it, and does not store it.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1 as api;
use tonic::{Request, Response, Status};

use crate::settings::{Secret, SecretSource};

/// BuildKit's own limit, in bytes (`secretsprovider.MaxSecretSize`).
const LIMIT: usize = 500 * 1024;

pub(super) struct SecretService(HashMap<String, SecretSource>);

impl SecretService {
    pub(super) fn new(secrets: Vec<Secret>) -> Self {
        Self(secrets.into_iter().map(|secret| (secret.id, secret.source)).collect())
    }
}

#[tonic::async_trait]
impl api::secrets_server::Secrets for SecretService {
    async fn get_secret(&self, request: Request<api::GetSecretRequest>) -> Result<Response<api::GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let not_found = || Status::not_found(format!("secret {id}: not found"));
        let data = match self.0.get(&id).ok_or_else(not_found)? {
            SecretSource::File(path) => tokio::fs::read(path).await.map_err(|error| {
                Status::failed_precondition(format!("failed to read the secret {id} from {}: {error}", path.display()))
            })?,
            // This is the only variable read outside `cli`: hakobi neither reads it before the request nor copies it into settings.
            SecretSource::Env(name) => std::env::var_os(name).ok_or_else(not_found)?.into_encoded_bytes(),
        };
        if data.len() > LIMIT {
            return Err(Status::invalid_argument(format!(
                "the secret {id} has {} bytes; BuildKit's limit is {LIMIT}",
                data.len()
            )));
        }
        Ok(Response::new(api::GetSecretResponse { data }))
    }
}
