//! All settings of a run.

use super::command::Command;
use super::common::{DaemonEndpoint, ProgressMode, RegistrySettings, Transport};

/// What a run is, and what all commands share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How it is shown.
    pub progress: ProgressMode,
    /// Whether it has colours: on a terminal, without NO_COLOR.
    pub color: bool,
    /// What `--debug` or `HAKOBI_LOG` asks for: levels, by module.
    pub log: Option<String>,
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
