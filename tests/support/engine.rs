//! A Docker engine of the tests, for one test at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::parts::part;

/// Docker 20.10, overlay2.
pub const D20: &str = "d20";
/// Docker 28.5, overlay2.
pub const D28: &str = "d28";
/// Docker 28.5, containerd store.
pub const C28: &str = "c28";
/// Every generation, for tests that run on each.
pub const ENGINES: [&str; 3] = [D20, D28, C28];

/// An engine that no other test has as long as this lives.
pub struct Engine {
    name: &'static str,
    socket: PathBuf,
    _lock: File,
}

impl Engine {
    /// Waits until no other test has it; also those of other test programs, and of other checkouts with the same parts.
    pub fn lock(name: &'static str) -> Self {
        let host = part(&format!("HAKOBI_TEST_{}", name.to_uppercase()));
        let socket = PathBuf::from(host.strip_prefix("unix://").unwrap());
        let lock = File::create(format!("{}.test-lock", socket.display())).unwrap();
        lock.lock().unwrap();
        Self { name, socket, _lock: lock }
    }

    /// The same, with nothing in it.
    pub fn fresh(name: &'static str) -> Self {
        let engine = Self::lock(name);
        engine.wipe();
        engine
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its address, as DOCKER_HOST has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// As on a brand-new machine.
    pub fn wipe(&self) {
        succeed(Command::new(part("HAKOBI_TEST_WIPE")).arg(self.name));
    }

    /// The tests' own docker client on this engine; what it prints, without the space around it.
    pub fn docker(&self, arguments: &[&str]) -> String {
        succeed(Command::new(part("HAKOBI_TEST_DOCKER_CLI")).args(arguments).env("DOCKER_HOST", self.host()))
    }
}

/// skopeo, which knows the registries and their password.
pub fn skopeo(arguments: &[&str]) -> String {
    succeed(Command::new(part("HAKOBI_TEST_SKOPEO")).args(arguments))
}

/// crane, likewise.
pub fn crane(arguments: &[&str]) -> String {
    succeed(Command::new(part("HAKOBI_TEST_CRANE")).args(arguments))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).trim().to_owned()
}
