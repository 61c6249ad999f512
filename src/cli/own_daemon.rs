//! Declares and parses the flags of the daemon that builds.

use clap::Arg;

use super::environment::Environment;
use super::given::{Given, choice, text};
use crate::settings::{DaemonChoice, DaemonSettings};

/// Where the machine's daemon has its configuration (`dockerd --config-file`).
const CONFIGURATION: &str = "/etc/docker/daemon.json";

/// Returns the flags.
pub fn flags() -> [Arg; 2] {
    [
        choice(
            "daemon",
            "WHICH",
            &["auto", "stock", "lazy"],
            "Daemon for what has to run: the machine's (`stock`), or one of hakobi's own whose data root is kept in the cache and fetched \
             as it is read (`lazy`; needs root, /dev/fuse, loop devices and a pushed image) [default: auto, which is lazy if the cache \
             has such a data root]",
        ),
        text(
            "daemon-config",
            "FILE",
            "Configuration of the machine's daemon, whose settings for builds the lazy daemon shares [default: /etc/docker/daemon.json]",
        ),
    ]
}

/// Resolves the flags.
pub fn settings(given: Given<'_>, environment: &Environment) -> DaemonSettings {
    DaemonSettings {
        choice: match given.text("daemon").as_deref() {
            Some("stock") => DaemonChoice::Stock,
            Some("lazy") => DaemonChoice::Lazy,
            _ => DaemonChoice::Auto,
        },
        configuration: environment.resolve(given.text("daemon-config").as_deref().unwrap_or(CONFIGURATION)),
    }
}
