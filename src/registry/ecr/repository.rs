//! Repositories of ECR, and their layers.

use std::collections::HashMap;

use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability, LayerAvailability, Tag,
};

use super::{Ecr, EcrHost, api};
use crate::domain::{Digest, RegistryHost};
use crate::registry::error::Result;
use crate::settings::CreateRepository;

/// The facts that ECR states about a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Described {
    /// Whether existing tags cannot move (except those that a filter excludes).
    pub(in crate::registry) immutable_tags: bool,
}

/// The limit of `BatchCheckLayerAvailability` (ECR API reference).
const MOST_LAYERS: usize = 100;

impl Ecr {
    /// Returns those of these layers that the repository has, with their sizes in bytes.
    pub(in crate::registry) async fn available(
        &self,
        name: &RegistryHost,
        host: &EcrHost,
        path: &str,
        digests: &[Digest],
    ) -> Result<HashMap<Digest, u64>> {
        let client = self.client(name, host).await;
        let mut there = HashMap::new();
        for part in digests.chunks(MOST_LAYERS) {
            let answer = client
                .batch_check_layer_availability()
                .registry_id(&host.account)
                .repository_name(path)
                .set_layer_digests(Some(part.iter().map(Digest::to_string).collect()))
                .send()
                .await
                .map_err(|error| api::failed("check which layers exist", name, "ecr:BatchCheckLayerAvailability", &error))?;
            let available =
                answer.layers().iter().filter(|layer| layer.layer_availability() == Some(&LayerAvailability::Available));
            there.extend(available.filter_map(|layer| {
                let size = layer.layer_size().and_then(|size| u64::try_from(size).ok())?;
                Some((layer.layer_digest()?.parse::<Digest>().ok()?, size))
            }));
        }
        Ok(there)
    }

    /// Returns the repository. Returns `None` if it does not exist.
    pub(in crate::registry) async fn describe(
        &self,
        name: &RegistryHost,
        host: &EcrHost,
        path: &str,
    ) -> Result<Option<Described>> {
        let client = self.client(name, host).await;
        let answer = client.describe_repositories().registry_id(&host.account).repository_names(path).send().await;
        match answer {
            Ok(answer) => Ok(answer.repositories().first().map(|repository| Described {
                immutable_tags: matches!(
                    repository.image_tag_mutability(),
                    Some(ImageTagMutability::Immutable | ImageTagMutability::ImmutableWithExclusion)
                ),
            })),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_repository_not_found_exception()) => Ok(None),
            Err(error) => Err(api::failed("describe the repository", name, "ecr:DescribeRepositories", &error)),
        }
    }

    /// Creates the repository. Succeeds if another job has created it meanwhile.
    pub(in crate::registry) async fn create(
        &self,
        name: &RegistryHost,
        host: &EcrHost,
        path: &str,
        settings: &CreateRepository,
    ) -> Result<()> {
        let client = self.client(name, host).await;
        let mut request = client
            .create_repository()
            .registry_id(&host.account)
            .repository_name(path)
            .image_scanning_configuration(ImageScanningConfiguration::builder().scan_on_push(settings.scan_on_push).build())
            .image_tag_mutability(if settings.immutable_tags {
                ImageTagMutability::Immutable
            } else {
                ImageTagMutability::Mutable
            });
        if let Some(key) = &settings.kms_key
            && let Ok(encryption) = EncryptionConfiguration::builder().encryption_type(EncryptionType::Kms).kms_key(key).build()
        {
            request = request.encryption_configuration(encryption);
        }
        for (key, value) in &settings.tags {
            if let Ok(tag) = Tag::builder().key(key).value(value).build() {
                request = request.tags(tag);
            }
        }
        match request.send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("RepositoryAlreadyExistsException") => return Ok(()),
            Err(error) => return Err(api::failed("create the repository", name, "ecr:CreateRepository", &error)),
        }
        if let Some(policy) = &settings.lifecycle_policy {
            client
                .put_lifecycle_policy()
                .registry_id(&host.account)
                .repository_name(path)
                .lifecycle_policy_text(policy)
                .send()
                .await
                .map_err(|error| api::failed("set the lifecycle policy", name, "ecr:PutLifecyclePolicy", &error))?;
        }
        Ok(())
    }
}
