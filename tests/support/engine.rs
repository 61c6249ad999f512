//! A Docker engine that one test uses at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::parts::part;

/// Docker 20.10 with overlay2.
pub const D20: &str = "d20";
/// Docker 28.5 with overlay2.
pub const D28: &str = "d28";
/// Docker 28.5 with the containerd image store.
pub const C28: &str = "c28";
/// All engines, for tests that run on each.
pub const ENGINES: [&str; 3] = [D20, D28, C28];

/// An engine that no other test uses while this value exists.
pub struct Engine {
    name: &'static str,
    socket: PathBuf,
    _lock: File,
}

impl Engine {
    /// Waits until no other test uses the engine. This includes other test programs, and other checkouts with the same parts.
    pub fn lock(name: &'static str) -> Self {
        let host = part(&format!("HAKOBI_TEST_{}", name.to_uppercase()));
        let socket = PathBuf::from(host.strip_prefix("unix://").unwrap());
        let lock = File::create(format!("{}.test-lock", socket.display())).unwrap();
        lock.lock().unwrap();
        Self { name, socket, _lock: lock }
    }

    /// Locks and wipes the engine.
    pub fn fresh(name: &'static str) -> Self {
        let engine = Self::lock(name);
        engine.wipe();
        engine
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns its address, as in DOCKER_HOST.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Removes everything, so that the engine is like on a new machine.
    pub fn wipe(&self) {
        succeed(Command::new(part("HAKOBI_TEST_WIPE")).arg(self.name));
    }

    /// Runs the tests' own docker client on this engine, and returns its output without surrounding blanks.
    pub fn docker(&self, arguments: &[&str]) -> String {
        succeed(Command::new(part("HAKOBI_TEST_DOCKER_CLI")).args(arguments).env("DOCKER_HOST", self.host()))
    }
}

/// Runs skopeo, which knows the registries and their password.
pub fn skopeo(arguments: &[&str]) -> String {
    succeed(Command::new(part("HAKOBI_TEST_SKOPEO")).args(arguments))
}

/// Runs crane, which knows them too.
pub fn crane(arguments: &[&str]) -> String {
    succeed(Command::new(part("HAKOBI_TEST_CRANE")).args(arguments))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).trim().to_owned()
}
