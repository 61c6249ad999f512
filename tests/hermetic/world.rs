//! What a story needs: a machine with a project, a scripted daemon, a registry with a base image, and a cache in a directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::machine::{Machine, Run};
use crate::scripted::daemon::{Daemon, StoreKind};
use crate::scripted::files::{Files, Node};
use crate::scripted::plain::{plain, same_image};
use crate::scripted::registry::{Image, Registry};

/// Serves all stories: what it runs ends with its story.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

pub struct World {
    pub machine: Machine,
    pub daemon: Arc<Daemon>,
    pub registry: Registry,
    socket: tempfile::TempDir,
    listening: tokio::task::JoinHandle<()>,
    /// The name of the base image.
    pub base: String,
}

impl Drop for World {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What came of a build that ended well.
pub struct Built {
    pub report: Value,
    /// The steps that the daemon ran, as they are called in the progress.
    pub ran: Vec<String>,
    pub stderr: String,
}

impl Built {
    pub fn tier(&self) -> &str {
        self.report["tier"].as_str().unwrap_or_default()
    }

    /// The warnings about the cache.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.report["cache"]["warnings"].as_array().into_iter().flatten();
        all.map(|warning| warning.as_str().map_or_else(|| warning.to_string(), str::to_owned)).collect()
    }

    /// The instructions of the steps with this status.
    pub fn steps(&self, status: &str) -> Vec<&str> {
        let steps = self.report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == status);
        steps.filter_map(|step| step["instruction"].as_str()).collect()
    }
}

impl World {
    /// With this Dockerfile, in which `BASE` stands for the base image.
    pub fn new(dockerfile: &str) -> Self {
        Self::on(StoreKind::Containerd, dockerfile)
    }

    /// With a daemon that keeps images in this way.
    pub fn on(store: StoreKind, dockerfile: &str) -> Self {
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("docker.sock");
        let daemon = Daemon::new(store);
        let (registry, listening) = runtime().block_on(async { (Registry::start().await, daemon.listen(&path)) });
        let mut files = Files::default();
        files.put("etc/base-release", Node::file("1\n", 0o644, 1_700_000_000));
        files.put("app/old", Node::file("of the base\n", 0o600, 1_700_000_000));
        let base = registry.put_image("base", &[files], json!({ "Env": ["PATH=/bin"], "Cmd": ["sh"] }));
        let machine = Machine::with(&format!("unix://{}", path.display()));
        let world = Self { machine, daemon, registry, socket, listening, base };
        world.put_dockerfile(dockerfile);
        world
    }

    /// Writes the Dockerfile anew.
    pub fn dockerfile(self, text: &str) -> Self {
        self.put_dockerfile(text);
        self
    }

    pub fn put_dockerfile(&self, text: &str) {
        self.machine.write("Dockerfile", &text.replace("BASE", &self.base));
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        self.machine.write(path, text);
        self
    }

    /// The cache's directory.
    pub fn cache(&self) -> PathBuf {
        self.machine.home().join("cache")
    }

    /// The file in the cache of a blob, by its digest.
    pub fn cached(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let found = all_files(&self.cache()).into_iter().find(|path| path.to_string_lossy().ends_with(hex));
        found.unwrap_or_else(|| panic!("the cache does not have {digest}: {:#?}", all_files(&self.cache())))
    }

    /// The daemon as a new machine has it: empty.
    pub fn wiped(&self) -> &Self {
        self.daemon.solver.wipe();
        self.daemon.images.lock().unwrap().clear();
        self
    }

    /// A command with the options of all of them.
    pub fn hakobi(&self, command: &str, more: &[&str]) -> Run {
        let image = format!("{}/app:1", self.registry.host());
        let own = [command, "--progress", "plain", "-t", &image, "--cache", "../cache"];
        self.machine.hakobi(&[&own[..], more, &["."]].concat())
    }

    /// Builds and pushes, whatever comes of it.
    pub fn try_build(&self, more: &[&str]) -> Run {
        self.hakobi("build", &[&["--push", "--report", "../report.json"], more].concat())
    }

    /// Builds and pushes, and holds the image against what the model makes of the project by itself.
    #[track_caller]
    pub fn build(&self, more: &[&str]) -> Built {
        self.daemon.ran.lock().unwrap().clear();
        let run = self.try_build(more).exits(0);
        self.right(run)
    }

    /// Takes a build that ended well, and holds its image against what the model makes.
    #[track_caller]
    pub fn right(&self, run: Run) -> Built {
        let ran = std::mem::take(&mut *self.daemon.ran.lock().unwrap());
        let built = Built { report: self.machine.report("../report.json"), ran, stderr: run.stderr };
        same_image(&self.image(), &self.plain(), &built.stderr);
        built
    }

    /// The image that was pushed.
    pub fn image(&self) -> Image {
        self.registry.image("app", "1")
    }

    /// What the model makes of the project.
    pub fn plain(&self) -> Image {
        runtime().block_on(plain(&self.machine.folder())).unwrap()
    }
}

/// All files below a folder.
pub fn all_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}
