//! Everything a run was asked to do, resolved: flags over `HAKOBI_*` over what the CI says over defaults.
//!
//! Values only. `cli` makes them, once; nothing below reads a flag or a variable of the environment again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{ImageRef, Platform, RegistryHost};

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
    /// `--report`.
    pub report_file: Option<PathBuf>,
    /// What is written for whoever goes on with the image.
    pub hand_off: HandOffSettings,
    /// What the CI says of this run.
    pub ci: CiSettings,
}

/// `hakobi doctor`.
#[derive(Debug, Clone)]
pub struct DoctorSettings {
    /// Images whose repositories are tried.
    pub tags: Vec<ImageRef>,
    /// The cache.
    pub store: Option<CacheSettings>,
    /// What the CI says of this run.
    pub ci: CiSettings,
    /// Variables that name proxies and are set.
    pub proxies: Vec<String>,
}

/// The CIs that `hakobi init` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitTarget {
    /// AWS CodeBuild.
    CodeBuild,
    /// Travis CI.
    Travis,
    /// Jenkins.
    Jenkins,
    /// GitHub Actions.
    GitHub,
}

/// `hakobi init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitSettings {
    /// For which CI.
    pub target: InitTarget,
    /// The project.
    pub directory: PathBuf,
    /// The image's repository.
    pub repository: Option<String>,
    /// The bucket that layers are kept in.
    pub bucket: Option<String>,
    /// Whether a file that is there is replaced.
    pub force: bool,
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

/// What a run is, and what all commands share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How it is shown.
    pub progress: ProgressMode,
    /// No colours (NO_COLOR, or not a terminal).
    pub color: bool,
    /// The daemon.
    pub daemon: DaemonEndpoint,
    /// How layers go to the daemon and come from it.
    pub transport: Transport,
    /// Registries.
    pub registries: RegistrySettings,
    /// Things worth telling before work starts: `DOCKER_BUILDKIT=0` was given, a flag does nothing.
    pub warnings: Vec<String>,
    /// The command.
    pub command: Command,
}

/// Where an archive of images is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveFrom {
    /// `-`.
    Stdin,
    /// A file.
    File(PathBuf),
    /// `s3://BUCKET/KEY`.
    S3 {
        /// The bucket, and what of the key comes before its last part.
        bucket: S3Settings,
        /// The last part of the key.
        name: String,
    },
}

impl fmt::Display for ArchiveFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
            Self::S3 { bucket, name } if bucket.prefix.is_empty() => write!(f, "s3://{}/{name}", bucket.bucket),
            Self::S3 { bucket, name } => write!(f, "s3://{}/{}/{name}", bucket.bucket, bucket.prefix),
        }
    }
}

/// `hakobi cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheCommand {
    /// `ls`: the images, by scope.
    List {
        /// As JSON.
        json: bool,
    },
    /// `stat`: how much it is.
    Stat {
        /// As JSON.
        json: bool,
    },
    /// `verify`: reads everything.
    Verify {
        /// Removes what is wrong.
        repair: bool,
    },
}

/// The command.
#[derive(Debug, Clone)]
pub enum Command {
    /// `save IMAGE…`.
    Save {
        /// Images of the daemon.
        images: Vec<ImageRef>,
        /// Where they are kept.
        cache: CacheSettings,
        /// Of new layers.
        compression: Compression,
        /// `--report`.
        report_file: Option<PathBuf>,
    },
    /// `restore IMAGE…`.
    Restore {
        /// What they will be called.
        images: Vec<ImageRef>,
        /// Where they are kept.
        cache: CacheSettings,
        /// `--report`.
        report_file: Option<PathBuf>,
    },
    /// `import FILE|URL [IMAGE]`.
    Import {
        /// The archive.
        from: ArchiveFrom,
        /// The name of an image that has none.
        name: Option<ImageRef>,
        /// Where it is kept.
        cache: CacheSettings,
        /// Of layers that are not compressed.
        compression: Compression,
    },
    /// `export IMAGE -o FILE`.
    Export {
        /// What is in the store.
        image: ImageRef,
        /// The archive; standard output where absent.
        file: Option<PathBuf>,
        /// Where it is kept.
        cache: CacheSettings,
    },
    /// `cache …`.
    Cache {
        /// What is asked.
        command: CacheCommand,
        /// Which store.
        cache: CacheSettings,
    },
    /// `build`.
    Build(Box<BuildSettings>),
    /// `plan`: what a build would do.
    Plan {
        /// The build.
        build: Box<BuildSettings>,
        /// As JSON.
        json: bool,
    },
    /// `push IMAGE…`: images of the daemon.
    Push {
        /// What is pushed.
        images: Vec<ImageRef>,
        /// How.
        settings: PushSettings,
        /// `--report`.
        report_file: Option<PathBuf>,
    },
    /// `promote SRC TAG…`.
    Promote {
        /// An image in a registry.
        source: ImageRef,
        /// Where its manifest goes: full references.
        targets: Vec<ImageRef>,
        /// What is done about tags that are there.
        settings: PushSettings,
    },
    /// `promote --list`: what a tag stands for and stood for.
    History(ImageRef),
    /// `doctor`: tries what a run needs.
    Doctor(Box<DoctorSettings>),
    /// `init CI`: a file for a CI.
    Init(InitSettings),
    /// `login HOST`: prints, stores or answers credentials.
    Login(LoginSettings),
    /// `completions SHELL`, `man`: the text is ready.
    Print(String),
}

/// `hakobi login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSettings {
    /// `hakobi login HOST`: tries the credentials and says whether they work.
    Check(RegistryHost),
    /// `hakobi login --write HOST`: writes Docker's config.json, because it was asked for.
    Write(RegistryHost),
    /// As a Docker credential helper (`docker-credential-hakobi get`): the host on standard input, JSON on standard output.
    Helper(String),
}
