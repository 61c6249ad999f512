//! The functions of ECR that need AWS's own API: logging in, looking up many layers at once, describing and creating repositories.
//!
//! hakobi reads and writes ECR's blobs and manifests with the registry protocol, as for any registry. Only this folder imports the
//! AWS SDK.

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
    /// Creates it without a call to AWS.
    pub(super) fn new(source: AwsSource, roles: BTreeMap<RegistryHost, String>) -> Self {
        Self { source, roles, clients: Mutex::default(), logins: Mutex::default() }
    }

    /// Returns whether the settings name a role for this registry.
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
