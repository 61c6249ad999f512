//! What ECR does by AWS's own API: logging in, asking for many layers at once, describing and making repositories.
//!
//! Blobs and manifests of ECR go by the registry protocol like any other's. Only this folder imports the AWS SDK.

mod api;
mod config;
mod host;
mod login;
mod repository;

pub use host::EcrHost;
pub(super) use login::Login;

use std::collections::{BTreeMap, HashMap};

use tokio::sync::Mutex;

use crate::aws::AwsSource;
use crate::domain::RegistryHost;

/// The AWS side of all ECR registries of a run.
pub(super) struct Ecr {
    source: AwsSource,
    roles: BTreeMap<RegistryHost, String>,
    clients: Mutex<HashMap<RegistryHost, aws_sdk_ecr::Client>>,
    logins: Mutex<HashMap<RegistryHost, Login>>,
}

impl Ecr {
    /// Nothing is asked of AWS yet.
    pub(super) fn new(source: AwsSource, roles: BTreeMap<RegistryHost, String>) -> Self {
        Self { source, roles, clients: Mutex::default(), logins: Mutex::default() }
    }

    /// Whether a role was named for this registry.
    pub(super) fn has_role(&self, host: &RegistryHost) -> bool {
        self.roles.contains_key(host)
    }

    async fn client(&self, name: &RegistryHost, host: &EcrHost) -> aws_sdk_ecr::Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(name) {
            return client.clone();
        }
        let client = config::client(&self.source, host, self.roles.get(name)).await;
        clients.insert(name.clone(), client.clone());
        client
    }
}
