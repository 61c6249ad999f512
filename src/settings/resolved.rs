//! All settings of a run.

use super::command::Command;
use super::common::{DaemonEndpoint, ProgressMode, RegistrySettings, Transport};

/// The settings that all commands share, and the command.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The form of the display.
    pub progress: ProgressMode,
    /// Whether to use colours: on a terminal, and without NO_COLOR.
    pub color: bool,
    /// The log levels by module, from `--debug` or `HAKOBI_LOG`.
    pub log: Option<String>,
    /// The daemon.
    pub daemon: DaemonEndpoint,
    /// The transfer of layers to and from the daemon.
    pub transport: Transport,
    /// The access to registries.
    pub registries: RegistrySettings,
    /// Warnings to show before the work starts: `DOCKER_BUILDKIT=0` was set, a flag has no effect.
    pub warnings: Vec<String>,
    /// The command.
    pub command: Command,
}
