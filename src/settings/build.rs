//! The settings of `hakobi build`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{CacheSettings, CiSettings, HandOffSettings, PushSettings, RunFiles};
use crate::domain::{ImageRef, Platform};

/// The kind of `CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A local directory.
    Directory(PathBuf),
    /// A tar, or only a Dockerfile, on standard input.
    Stdin,
    /// A git repository or an http(s) URL that the daemon fetches.
    Remote(String),
}

/// The location of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    /// A local path, or a path within a context that is not local.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// An http(s) URL, which the client fetches, as in Docker.
    Remote(String),
}

/// A named context (`--build-context NAME=VALUE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A local directory.
    Directory(PathBuf),
    /// An OCI layout directory (`oci-layout://PATH[:TAG][@DIGEST]`).
    OciLayout(String),
    /// Another source that the frontend supports itself: `docker-image://…`, a git or http(s) URL, `target:…`.
    Frontend(String),
}

/// A secret for `RUN --mount=type=secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The ID.
    pub id: String,
    /// The location of the value.
    pub source: SecretSource,
}

/// The location of a secret's value. hakobi reads the value only when the daemon asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// The name of an environment variable.
    Env(String),
}

/// An agent or keys for `RUN --mount=type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSource {
    /// The ID. `default` if the user gave none.
    pub id: String,
    /// One socket, or key files. Never empty: the default is the agent's socket from SSH_AUTH_SOCK.
    pub paths: Vec<PathBuf>,
}

/// BuildKit's CSV of a cache import or export (`type=registry,ref=…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `inline`, `local`, `gha`, …
    pub kind: String,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A value of `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// A bare reference: an image that an earlier build pushed.
    Latest(ImageRef),
    /// BuildKit's CSV.
    Entry(CacheEntry),
}

impl CacheFrom {
    /// Returns whether it is an image, beside which hakobi's cache is.
    #[must_use]
    pub fn is_image(&self) -> bool {
        matches!(self, Self::Latest(_))
    }
}

/// A destination of the result (`-o`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `local`, `tar`, `oci` or `docker`. [`BuildSettings`] has separate fields for `--push`, `--load` and their equivalents.
    pub kind: String,
    /// A file, a directory, or `-` for standard output.
    pub destination: Option<PathBuf>,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// What decides which steps are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// hakobi's plan.
    #[default]
    Auto,
    /// BuildKit.
    Daemon,
}

/// Whether hakobi carries the content of cache mounts from machine to machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMode {
    /// hakobi brings saved mounts in, and saves them after the build.
    On,
    /// hakobi brings saved mounts in, and saves nothing.
    ReadOnly,
    /// hakobi does neither.
    Off,
}

/// The modification times with which hakobi sends the context's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileTimes {
    /// A file that is unchanged since the mounts were saved keeps the time that it had there.
    Kept,
    /// The files' own times.
    Own,
}

/// The settings of carried cache mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSettings {
    /// Whether hakobi carries them. [`MountMode::Off`] without a cache, and never [`MountMode::On`] if the cache is only read.
    pub mode: MountMode,
    /// The times of the context's files. [`FileTimes::Own`] if hakobi carries no mounts.
    pub times: FileTimes,
    /// How long saving may take after the push.
    pub budget: Duration,
    /// The largest size of one mount in the cache, in bytes.
    pub most_bytes: u64,
    /// The largest size of all mounts of a build in the cache, in bytes.
    pub most_total: u64,
    /// Whether to save mounts also after a failed build.
    pub save_failed: bool,
    /// Whether commands get the caches of their tools as mounts that the Dockerfile does not declare.
    pub automatic: bool,
}

/// Which daemon builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DaemonChoice {
    /// One of hakobi's own if the cache has its disk and the machine allows it, else the machine's.
    #[default]
    Auto,
    /// The machine's.
    Stock,
    /// One of hakobi's own if the machine allows it.
    Lazy,
}

/// The settings of the daemon that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Which one.
    pub choice: DaemonChoice,
    /// The file with the configuration of the machine's daemon, of which hakobi's own takes what a build could notice.
    pub configuration: PathBuf,
}

/// The settings of `hakobi build`.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// The build context.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// The target stage. `None` means the last one.
    pub target: Option<String>,
    /// `--build-arg` and the proxies of Docker's configuration, with values from the environment.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`, with its optional type prefix.
    pub annotations: Vec<String>,
    /// `--platform` or DOCKER_DEFAULT_PLATFORM. Empty means the daemon's own platform.
    pub platforms: Vec<Platform>,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh`.
    pub ssh: Vec<SshSource>,
    /// `--build-context`.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Further options of the frontend, under BuildKit's own names: `force-network-mode`, `add-hosts`, `ulimit`, `shm-size`,
    /// `cgroup-parent`, `no-cache`, `image-resolve-mode`, `memory`, `cpuquota`, … An address in `add-hosts` may be the word
    /// `host-gateway`. It stands for the worker's label `org.mobyproject.buildkit.worker.moby.host-gateway-ip`, which only the
    /// daemon knows.
    pub frontend_options: BTreeMap<String, String>,
    /// `--allow`, and the entitlement of `--network host`.
    pub entitlements: Vec<String>,
    /// `--call`: `build`, `check`, `outline`, `targets`.
    pub call: String,
    /// The format of a call's answer: `json` or `text`. `None` means the default of the call.
    pub call_format: Option<String>,
    /// Whether a call succeeds even if it finds faults (`ignorestatus=true`).
    pub call_ignore_status: bool,
    /// The tags. A reference without a tag has `latest`.
    pub tags: Vec<ImageRef>,
    /// Whether to push all tags.
    pub push: bool,
    /// Whether to load the image into the daemon.
    pub load: bool,
    /// The values of `-o` of other types.
    pub outputs: Vec<Output>,
    /// `--cache-from`.
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheEntry>,
    /// The cache. `None` means no cache.
    pub store: Option<CacheSettings>,
    /// The daemon that builds.
    pub daemon: DaemonSettings,
    /// The carried cache mounts.
    pub mounts: MountSettings,
    /// What decides which steps are cached.
    pub strategy: Strategy,
    /// The maximum age of the results of commands. Commands with older results run again.
    pub max_age: Option<Duration>,
    /// Whether to use the base images of the last build if a registry does not answer.
    pub recorded_bases: bool,
    /// Whether to compare the layers that hakobi assembled without pulling the base with those that the daemon builds.
    pub verify: bool,
    /// The options of a push.
    pub push_settings: PushSettings,
    /// `--iidfile`.
    pub iid_file: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// The files that report the run.
    pub files: RunFiles,
    /// The files for deployments and later steps.
    pub hand_off: HandOffSettings,
    /// The CI's information about this run.
    pub ci: CiSettings,
}
