//! The settings that several commands share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{RegistryHost, Repository};

/// The form of the display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// A live display on a terminal, else lines.
    Auto,
    /// Lines with times.
    Plain,
    /// The live display, even without a terminal.
    Tty,
    /// Only the result.
    Quiet,
    /// Lines of JSON, as in buildx.
    RawJson,
}

/// The address of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonEndpoint {
    /// `unix:///var/run/docker.sock`, `tcp://host:2376`, `ssh://user@host`.
    pub url: String,
    /// The certificates, if the connection uses TLS.
    pub tls: Option<DaemonTls>,
    /// The origin of the address, for messages: `DOCKER_HOST`, `context "x"`, `default`.
    pub origin: String,
}

/// The TLS settings of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaemonTls {
    /// A PEM file of the certificate authorities. `None` means those of the system.
    pub ca: Option<PathBuf>,
    /// A PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// A PEM file of the client's key.
    pub key: Option<PathBuf>,
    /// Whether to skip the check of the daemon's certificate (DOCKER_TLS without DOCKER_TLS_VERIFY).
    pub skip_verify: bool,
}

/// The transfer of layers to and from the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Through the loopback registry if a check shows that the daemon can reach it, else as an archive.
    #[default]
    Auto,
    /// Through the loopback registry.
    Registry,
    /// To the daemon through the build session and `docker load`, from it through `docker save`.
    Archive,
}

/// The access to registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// The directory of Docker's `config.json` (DOCKER_CONFIG or ~/.docker).
    pub docker_config: Option<PathBuf>,
    /// Hosts for which plain HTTP and invalid certificates are allowed.
    pub insecure: Vec<RegistryHost>,
    /// The IAM role to assume for a registry.
    pub roles: BTreeMap<RegistryHost, String>,
    /// The pull-through cache of a registry.
    pub mirrors: BTreeMap<RegistryHost, String>,
}

/// The action for a tag that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfTagExists {
    /// Move the tag, like `docker push`.
    #[default]
    Overwrite,
    /// Build nothing, and exit with 3.
    Fail,
    /// Build nothing, and succeed with a note.
    Skip,
}

/// The location of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Settings),
    /// A repository of a registry.
    Registry(RegistryCacheSettings),
}

/// A store in a repository of a registry (`oci://HOST/REPOSITORY[:PREFIX]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCacheSettings {
    /// The repository.
    pub repository: Repository,
    /// Separates several caches in one repository; empty for none.
    pub prefix: String,
}

/// A cache in S3 (`s3://BUCKET/PREFIX?…`). The AWS SDK finds the credentials and the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// The prefix of all keys, without slashes at its ends. Empty if there is none.
    pub prefix: String,
    /// `region=`. `None` means the SDK's region.
    pub region: Option<String>,
    /// `path-style=`. The default is true for servers other than AWS.
    pub path_style: Option<bool>,
    /// `kms-key=`: encryption with this KMS key. An empty text means the account's own S3 key.
    pub kms_key: Option<String>,
    /// `storage-class=`.
    pub storage_class: Option<String>,
}

/// The allowed use of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Read, and write the run's own scope.
    #[default]
    ReadWrite,
    /// Only read.
    ReadOnly,
}

/// The cache of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// The location.
    pub location: StoreLocation,
    /// The location as the user gave it, for messages and the report.
    pub shown: String,
    /// The scope to write, and to read first.
    pub scope: String,
    /// The other scopes to read, in this order.
    pub fallbacks: Vec<String>,
    /// The allowed use.
    pub mode: CacheMode,
    /// Whether a fault of the cache fails the run (exit 4).
    pub required: bool,
    /// The size in bytes above which a run prunes the directory at its end. `None` means never.
    pub max_size: Option<u64>,
}

/// The compression of new layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, with a level from 1 to 9.
    Gzip(u32),
    /// zstd, with a level from 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// Returns its text in the keys of records. The text must never change.
    #[must_use]
    pub fn key_text(self) -> String {
        match self {
            Self::Gzip(level) => format!("Gzip({level})"),
            Self::Zstd(level) => format!("Zstd({level})"),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(6)
    }
}

/// The settings of an ECR repository that hakobi creates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRepository {
    /// Whether ECR scans images after a push.
    pub scan_on_push: bool,
    /// Whether tags are immutable.
    pub immutable_tags: bool,
    /// The ARN or alias of a KMS key. `None` means AES-256.
    pub kms_key: Option<String>,
    /// The tags of the repository.
    pub tags: BTreeMap<String, String>,
    /// The text of a lifecycle policy.
    pub lifecycle_policy: Option<String>,
}

/// The options of a push.
#[derive(Debug, Clone, Default)]
pub struct PushSettings {
    /// The action for existing tags, checked before the build.
    pub if_tag_exists: IfTagExists,
    /// The settings of missing ECR repositories. `None` means that hakobi creates none.
    pub create_repository: Option<CreateRepository>,
    /// The compression of layers that hakobi compresses.
    pub compression: Compression,
}

/// The files that report a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFiles {
    /// `--report`.
    pub report: Option<PathBuf>,
    /// `--timeline`.
    pub timeline: Option<PathBuf>,
}

/// The CI's information about a run, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CiSettings {
    /// `codebuild`, `travis`, `jenkins`, `github`, `gitlab` or `local`.
    pub provider: &'static str,
    /// The commit, if the CI names one.
    pub commit: Option<String>,
}

/// The files for deployments and later steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandOffSettings {
    /// `--image-definitions`.
    pub image_definitions: Option<PathBuf>,
    /// The containers in it.
    pub containers: Vec<String>,
    /// `--image-detail`.
    pub image_detail: Option<PathBuf>,
    /// `--image-env`: a file of variables for a shell.
    pub variables: Option<PathBuf>,
    /// `--summary`: a file of the run in Markdown.
    pub summary: Option<PathBuf>,
    /// The file to which a step of a GitHub workflow adds its outputs.
    pub github_output: Option<PathBuf>,
    /// The file to which it adds its summary.
    pub github_summary: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_key_is_what_it_was() {
        assert_eq!(Compression::default().key_text(), "Gzip(6)");
        assert_eq!(Compression::Zstd(3).key_text(), "Zstd(3)");
    }
}
