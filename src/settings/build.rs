//! What `hakobi build` was asked to do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{CacheSettings, CiSettings, HandOffSettings, PushSettings, RunFiles};
use crate::domain::{ImageRef, Platform};

/// What `CONTEXT` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A local directory.
    Directory(PathBuf),
    /// A tar, or a lone Dockerfile, on standard input.
    Stdin,
    /// A git repository or an http(s) URL, fetched by the daemon.
    Remote(String),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    /// A path, of a local file, or within a context that is not local.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// An http(s) URL: fetched by the client as Docker does.
    Remote(String),
}

/// A named context (`--build-context NAME=VALUE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A local directory.
    Directory(PathBuf),
    /// An OCI layout directory (`oci-layout://PATH[:TAG][@DIGEST]`).
    OciLayout(String),
    /// Anything the frontend understands itself: `docker-image://…`, a git or http(s) URL, `target:…`.
    Frontend(String),
}

/// A secret for `RUN --mount=type=secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where a secret's value is. The value itself is read only when the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment, by name.
    Env(String),
}

/// An agent or keys for `RUN --mount=type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSource {
    /// Its id; `default` where none is named.
    pub id: String,
    /// One socket, or key files. Never empty: the agent's socket is taken from SSH_AUTH_SOCK where none is named.
    pub paths: Vec<PathBuf>,
}

/// BuildKit's CSV of a cache import or export (`type=registry,ref=…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `inline`, `local`, `gha`, …
    pub kind: String,
    /// All else.
    pub attributes: BTreeMap<String, String>,
}

/// What `--cache-from` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// A bare reference: the pulled-latest way.
    Latest(ImageRef),
    /// BuildKit's own words.
    Entry(CacheEntry),
}

/// `-o`: where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `local`, `tar`, `oci`, `docker`: `--push` and `--load`, and what means the same, are in [`BuildSettings`].
    pub kind: String,
    /// A file, a directory, or `-` for standard output.
    pub destination: Option<PathBuf>,
    /// All else.
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

/// `hakobi build`.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// What is built.
    pub context: ContextSource,
    /// By which Dockerfile.
    pub dockerfile: DockerfileSource,
    /// The stage wanted; the last where absent.
    pub target: Option<String>,
    /// `--build-arg`, proxies of Docker's config included; resolved against the environment.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`, with its optional type prefix.
    pub annotations: Vec<String>,
    /// `--platform`, DOCKER_DEFAULT_PLATFORM; the daemon's own where empty.
    pub platforms: Vec<Platform>,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh`.
    pub ssh: Vec<SshSource>,
    /// `--build-context`.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Further options of the frontend, under BuildKit's own names: `force-network-mode`, `add-hosts`, `ulimit`, `shm-size`,
    /// `cgroup-parent`, `no-cache`, `image-resolve-mode`, `memory`, `cpuquota`, … In `add-hosts` the word `host-gateway` may stand for an
    /// address: the one in the worker's label `org.mobyproject.buildkit.worker.moby.host-gateway-ip`, which only the daemon knows.
    pub frontend_options: BTreeMap<String, String>,
    /// `--allow`, and what `--network host` needs.
    pub entitlements: Vec<String>,
    /// `--call`: `build`, `check`, `outline`, `targets`.
    pub call: String,
    /// How the answer of a call is shown: `json`, or `text`; as its printer likes where absent.
    pub call_format: Option<String>,
    /// Whether a call that finds something wrong is a success nonetheless (`ignorestatus=true`).
    pub call_ignore_status: bool,
    /// Tags, with `latest` put in where none is named.
    pub tags: Vec<ImageRef>,
    /// Push all tags.
    pub push: bool,
    /// Put the image into the daemon.
    pub load: bool,
    /// `-o` of other types.
    pub outputs: Vec<Output>,
    /// `--cache-from`.
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheEntry>,
    /// Where layers are kept between runs, if they are.
    pub store: Option<CacheSettings>,
    /// Where `--strategy daemon` keeps cached stages.
    pub cache_repository: Option<ImageRef>,
    /// Who decides what is cached.
    pub strategy: Strategy,
    /// Commands whose results are older run again.
    pub max_age: Option<Duration>,
    /// Where a registry does not answer, base images are taken to be what they were in the last build.
    pub recorded_bases: bool,
    /// Files that were laid on a base which is not there are laid on it by the daemon too, and compared.
    pub verify: bool,
    /// A push's options.
    pub push_settings: PushSettings,
    /// `--iidfile`.
    pub iid_file: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// What is written of the run.
    pub files: RunFiles,
    /// What is written for whoever goes on with the image.
    pub hand_off: HandOffSettings,
    /// What the CI says of this run.
    pub ci: CiSettings,
}
