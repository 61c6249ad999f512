//! The commands and their settings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{BuildSettings, CacheSettings, CiSettings, Compression, DaemonSettings, PushSettings, RunFiles, S3Settings};
use crate::domain::{ImageRef, RegistryHost};

/// `hakobi doctor`.
#[derive(Debug, Clone)]
pub struct DoctorSettings {
    /// Images whose repositories it checks.
    pub tags: Vec<ImageRef>,
    /// The cache.
    pub store: Option<CacheSettings>,
    /// The daemon that would build.
    pub daemon: DaemonSettings,
    /// The CI's information about this run.
    pub ci: CiSettings,
    /// The proxies from variables.
    pub proxies: Vec<Proxy>,
}

/// A proxy, without its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The name of the variable.
    pub name: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The CIs that `hakobi init` supports.
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
    /// GitLab CI.
    GitLab,
}

/// `hakobi init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitSettings {
    /// The CI.
    pub target: InitTarget,
    /// The directory of the project.
    pub directory: PathBuf,
    /// The repository of the image.
    pub repository: Option<String>,
    /// The S3 bucket for the cache.
    pub bucket: Option<String>,
    /// Whether to replace an existing file.
    pub force: bool,
}

/// The source of an archive of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveFrom {
    /// Standard input (`-`).
    Stdin,
    /// A file.
    File(PathBuf),
    /// `s3://BUCKET/KEY`.
    S3 {
        /// The bucket, and the key without its last part.
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

/// `cache prune`: what to remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneSettings {
    /// Builds that were not used for longer go.
    pub keep: Option<Duration>,
    /// How many builds of each image stay, the latest ones.
    pub keep_builds: Option<usize>,
    /// The size of what builds need, in bytes. The builds that were not used for the longest time go first.
    pub max_size: Option<u64>,
    /// Patterns of the scopes that may lose something. None means all.
    pub scopes: Vec<String>,
    /// How long a blob stays that nothing needs.
    pub grace: Duration,
    /// Whether that time begins when `prune` finds the blob unused. Otherwise only what was written since then stays.
    pub marks: bool,
    /// Whether to say only what would go.
    pub dry_run: bool,
    /// Whether to print JSON.
    pub json: bool,
}

/// `hakobi cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheCommand {
    /// `prune`: removes what no build used of late.
    Prune(PruneSettings),
    /// `ls`: lists the images by scope.
    List {
        /// Whether to print JSON.
        json: bool,
    },
    /// `stat`: shows the size.
    Stat {
        /// Whether to print JSON.
        json: bool,
    },
    /// `verify`: reads and checks all content.
    Verify {
        /// Whether to remove damaged content.
        repair: bool,
    },
}

/// The command of a run.
#[derive(Debug, Clone)]
pub enum Command {
    /// `save IMAGE…`.
    Save {
        /// The images of the daemon.
        images: Vec<ImageRef>,
        /// The cache.
        cache: CacheSettings,
        /// The compression of new layers.
        compression: Compression,
        /// The files that report the run.
        files: RunFiles,
    },
    /// `restore IMAGE…`.
    Restore {
        /// The names of the images.
        images: Vec<ImageRef>,
        /// The cache.
        cache: CacheSettings,
        /// The files that report the run.
        files: RunFiles,
    },
    /// `import FILE|URL [IMAGE]`.
    Import {
        /// The source of the archive.
        from: ArchiveFrom,
        /// The name for an image without one.
        name: Option<ImageRef>,
        /// The cache.
        cache: CacheSettings,
        /// The compression of layers that are not compressed.
        compression: Compression,
    },
    /// `export IMAGE -o FILE`.
    Export {
        /// The image in the cache.
        image: ImageRef,
        /// The archive's file. `None` means standard output.
        file: Option<PathBuf>,
        /// The cache.
        cache: CacheSettings,
    },
    /// `cache …`.
    Cache {
        /// The subcommand.
        command: CacheCommand,
        /// The cache.
        cache: CacheSettings,
    },
    /// `build`.
    Build(Box<BuildSettings>),
    /// `plan`: shows what a build would do.
    Plan {
        /// The settings of the build.
        build: Box<BuildSettings>,
        /// Whether to print JSON.
        json: bool,
    },
    /// `push IMAGE…`.
    Push {
        /// The images of the daemon.
        images: Vec<ImageRef>,
        /// The options of the push.
        settings: PushSettings,
        /// The files that report the run.
        files: RunFiles,
    },
    /// `promote SRC TAG…`.
    Promote {
        /// The image in a registry.
        source: ImageRef,
        /// The full references of the targets.
        targets: Vec<ImageRef>,
        /// The options of the push, such as for existing tags.
        settings: PushSettings,
    },
    /// `promote --list`: shows the current and the earlier images of a tag.
    History(ImageRef),
    /// `doctor`: checks the requirements of a run.
    Doctor(Box<DoctorSettings>),
    /// `init CI`: writes a file for a CI.
    Init(InitSettings),
    /// `login HOST`: checks, stores or prints credentials.
    Login(LoginSettings),
    /// `completions SHELL`, `man`: prints this text.
    Print(String),
}

impl Command {
    /// Returns the files that report the run. Returns `None` for commands without a report.
    #[must_use]
    pub fn files(&self) -> Option<&RunFiles> {
        match self {
            Self::Build(build) => Some(&build.files),
            Self::Push { files, .. } | Self::Save { files, .. } | Self::Restore { files, .. } => Some(files),
            _ => None,
        }
    }
}

/// `hakobi login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSettings {
    /// `hakobi login HOST`: checks the credentials, and reports whether they work.
    Check(RegistryHost),
    /// `hakobi login --write HOST`: writes Docker's config.json.
    Write(RegistryHost),
    /// As a Docker credential helper (`docker-credential-hakobi get`): the host on standard input, JSON on standard output.
    Helper(String),
}
