//! Everything a run was asked to do, resolved: flags over `HAKOBI_*` over what the CI says over defaults.
//!
//! Values only. `cli` makes them, once; nothing below reads a flag or a variable of the environment again.

mod build;
mod command;
mod common;
mod resolved;

pub use build::{
    BuildSettings, CacheEntry, CacheFrom, ContextSource, DaemonChoice, DaemonSettings, DockerfileSource, FileTimes, MountMode,
    MountSettings, NamedContext, Output, Secret, SecretSource, SshSource, Strategy,
};
pub use command::{
    ArchiveFrom, CacheCommand, Command, DoctorSettings, InitSettings, InitTarget, LoginSettings, Proxy, PruneSettings,
};
pub use common::{
    CacheMode, CacheSettings, CiSettings, Compression, CreateRepository, DaemonEndpoint, DaemonTls, HandOffSettings, IfTagExists,
    ProgressMode, PushSettings, RegistryCacheSettings, RegistrySettings, RunFiles, S3Settings, StoreLocation, Transport,
};
pub use resolved::Settings;
