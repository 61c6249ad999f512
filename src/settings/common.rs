//! Settings that several commands have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::domain::RegistryHost;

/// How the run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// A live display on a terminal, lines elsewhere.
    Auto,
    /// Lines with times.
    Plain,
    /// The live display, always.
    Tty,
    /// Nothing but the result.
    Quiet,
    /// JSON lines as buildx prints them.
    RawJson,
}

/// Where the daemon is and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonEndpoint {
    /// `unix:///var/run/docker.sock`, `tcp://host:2376`, `ssh://user@host`.
    pub url: String,
    /// Certificates, where the connection is TLS.
    pub tls: Option<DaemonTls>,
    /// Where this came from, for messages: `DOCKER_HOST`, `context "x"`, `default`.
    pub origin: String,
}

/// TLS to a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaemonTls {
    /// PEM of the authorities; the system's where absent.
    pub ca: Option<PathBuf>,
    /// PEM of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM of the client's key.
    pub key: Option<PathBuf>,
    /// Whether the daemon's certificate is not checked (DOCKER_TLS without DOCKER_TLS_VERIFY).
    pub skip_verify: bool,
}

/// How layers go to the daemon and come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Through the loopback registry where the daemon can reach it, which is tried.
    #[default]
    Auto,
    /// Through the loopback registry.
    Registry,
    /// Into the daemon through the build session and `docker load`, out of it through `docker save`.
    Archive,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// The folder of Docker's `config.json`, which is only ever read (DOCKER_CONFIG or ~/.docker).
    pub docker_config: Option<PathBuf>,
    /// Hosts that may speak plain HTTP or show a certificate that does not check.
    pub insecure: Vec<RegistryHost>,
    /// A role to take on for a registry.
    pub roles: BTreeMap<RegistryHost, String>,
    /// A pull-through cache in front of a registry.
    pub mirrors: BTreeMap<RegistryHost, String>,
}

/// What is done about a tag that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfTagExists {
    /// Moved, as `docker push` does.
    #[default]
    Overwrite,
    /// Nothing is built; exit 3.
    Fail,
    /// Nothing is built; a success that says so.
    Skip,
}

/// Where layers are kept between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Settings),
}

/// A store in S3 (`s3://BUCKET/PREFIX?…`). Credentials and endpoint are the AWS SDK's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Before all names; without slashes at its ends, empty for none.
    pub prefix: String,
    /// `region=`; the SDK's where absent.
    pub region: Option<String>,
    /// `path-style=`; for servers of one's own the default is true.
    pub path_style: Option<bool>,
    /// `kms-key=`: encryption with this key of KMS; empty for the account's own S3 key.
    pub kms_key: Option<String>,
    /// `storage-class=`.
    pub storage_class: Option<String>,
}

/// What may be done with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Reading, and writing the run's own scope.
    #[default]
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// The store of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Where it is.
    pub location: StoreLocation,
    /// As the user gave it, for messages and the report.
    pub shown: String,
    /// What is written, and read first.
    pub scope: String,
    /// What else is read, in this order.
    pub fallbacks: Vec<String>,
    /// What may be done with it.
    pub mode: CacheMode,
    /// Whether a fault of it fails the run (exit 4).
    pub required: bool,
}

/// How new layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, with its level 1 to 9.
    Gzip(u32),
    /// zstd, with its level 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// Its text in the keys of records, which stays as it is.
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

/// What a missing ECR repository is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRepository {
    /// Scan images when they are pushed.
    pub scan_on_push: bool,
    /// Tags cannot be moved.
    pub immutable_tags: bool,
    /// A KMS key's ARN or alias; AES-256 where absent.
    pub kms_key: Option<String>,
    /// Tags of the repository.
    pub tags: BTreeMap<String, String>,
    /// The text of a lifecycle policy.
    pub lifecycle_policy: Option<String>,
}

/// A push.
#[derive(Debug, Clone, Default)]
pub struct PushSettings {
    /// Asked before anything is built.
    pub if_tag_exists: IfTagExists,
    /// Whether, and how, missing ECR repositories are made.
    pub create_repository: Option<CreateRepository>,
    /// Of layers that hakobi compresses.
    pub compression: Compression,
}

/// Files that tell of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFiles {
    /// `--report`.
    pub report: Option<PathBuf>,
    /// `--timeline`.
    pub timeline: Option<PathBuf>,
}

/// What the CI says of a run, as reports have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CiSettings {
    /// `codebuild`, `travis`, `jenkins`, `github`, `gitlab` or `local`.
    pub provider: &'static str,
    /// The commit, where it names one.
    pub commit: Option<String>,
}

/// What is written for whoever goes on with the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandOffSettings {
    /// `--image-definitions`.
    pub image_definitions: Option<PathBuf>,
    /// The containers that are named in it.
    pub containers: Vec<String>,
    /// `--image-detail`.
    pub image_detail: Option<PathBuf>,
    /// `--image-env`: variables for a shell.
    pub variables: Option<PathBuf>,
    /// `--summary`: the run in Markdown.
    pub summary: Option<PathBuf>,
    /// Where a step of a GitHub workflow adds its outputs.
    pub github_output: Option<PathBuf>,
    /// Where it adds to its summary page.
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
