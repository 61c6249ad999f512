//! The commands.

use std::fmt;
use std::path::PathBuf;

use super::{BuildSettings, CacheSettings, CiSettings, Compression, PushSettings, RunFiles, S3Settings};
use crate::domain::{ImageRef, RegistryHost};

/// `hakobi doctor`.
#[derive(Debug, Clone)]
pub struct DoctorSettings {
    /// Images whose repositories are tried.
    pub tags: Vec<ImageRef>,
    /// The cache.
    pub store: Option<CacheSettings>,
    /// What the CI says of this run.
    pub ci: CiSettings,
    /// The proxies that variables name.
    pub proxies: Vec<Proxy>,
}

/// A proxy, without what it may take as a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The variable.
    pub name: String,
    /// Where it is.
    pub host: String,
    /// And its port.
    pub port: u16,
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
    /// S3 bucket for the cache.
    pub bucket: Option<String>,
    /// Whether a file that is there is replaced.
    pub force: bool,
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
        /// What is written of the run.
        files: RunFiles,
    },
    /// `restore IMAGE…`.
    Restore {
        /// What they will be called.
        images: Vec<ImageRef>,
        /// Where they are kept.
        cache: CacheSettings,
        /// What is written of the run.
        files: RunFiles,
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
        /// What is written of the run.
        files: RunFiles,
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

impl Command {
    /// What is written of the run, by commands that report.
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
    /// `hakobi login HOST`: tries the credentials and says whether they work.
    Check(RegistryHost),
    /// `hakobi login --write HOST`: writes Docker's config.json, because it was asked for.
    Write(RegistryHost),
    /// As a Docker credential helper (`docker-credential-hakobi get`): the host on standard input, JSON on standard output.
    Helper(String),
}
