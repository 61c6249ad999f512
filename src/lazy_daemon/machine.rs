//! Whether this machine allows a daemon of hakobi's own, and what its Docker is.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::command::run;

/// The programs besides `dockerd` that a keeper runs, and the package that usually has each.
const PROGRAMS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "util-linux"),
    ("losetup", "util-linux"),
    ("fstrim", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// The programs that a bridge needs.
const OF_NETWORK: [(&str, &str); 2] = [("ip", "iproute2"), ("iptables", "iptables")];

/// Docker's daemon on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledDocker {
    /// The version: `28.5.2`.
    pub version: String,
    /// The first part of the version.
    pub major: u32,
}

/// Returns the installed daemon, or why this machine does not allow one of hakobi's own.
///
/// # Errors
/// The reason, in words.
pub fn look(has_network: bool) -> Result<InstalledDocker, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it requires root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        let opened = OpenOptions::new().read(true).write(true).open(Path::new(device));
        opened.map_err(|error| format!("{device}: {}", in_words(&error)))?;
    }
    let programs = PROGRAMS.iter().chain(OF_NETWORK.iter().filter(|_| has_network));
    for (program, package) in programs {
        if is_missing(program) {
            return Err(format!("{program} is missing (package {package})"));
        }
    }
    let told = run("dockerd", &["--version"]).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "dockerd is missing".to_owned(),
        _ => error.to_string(),
    })?;
    version(&told).ok_or_else(|| format!("unknown version of dockerd: {told}"))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        // A container's cgroup or seccomp profile.
        io::ErrorKind::PermissionDenied => "access is denied (a container has to be privileged)".to_owned(),
        _ => error.to_string(),
    }
}

fn is_missing(program: &str) -> bool {
    let quiet = || Stdio::null();
    let started = Command::new(program).arg("-V").stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
    started.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Parses `Docker version 28.5.2+dfsg4, build 89c5e8f`.
fn version(told: &str) -> Option<InstalledDocker> {
    let version = told.strip_prefix("Docker version ")?.split(',').next()?.trim();
    let major = version.split('.').next()?.parse().ok()?;
    Some(InstalledDocker { version: version.to_owned(), major })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dockers_own() {
        let found = version("Docker version 20.10.24+dfsg1, build 297e128").unwrap();
        assert_eq!((&*found.version, found.major), ("20.10.24+dfsg1", 20));
        assert_eq!(version("Docker version 29.0.0, build x").map(|found| found.major), Some(29));
        assert_eq!((version("podman version 5"), version("Docker version x, build")), (None, None));
    }

    #[test]
    fn a_missing_program_is_found_missing() {
        assert!(is_missing("hakobi-has-no-such-program") && !is_missing("mount"));
    }
}
